"""Whether autograd records what a function writes to some tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..._compat.torch import autograd
from ..._compat.torch.operators.higher_order import CallMode, OpMode
from ..._compat.torch.operators.writes_and_draws import updates_statistics, written_arguments
from ..._compat.torch.storages import storage_key
from ..._compat.torch.tensors import base_of


class Recording(OpMode):
    """Calls ``refuse(slot, how)`` for each write that is not recorded.

    Attributes:
        opaque: There were writes of which only autograd can tell (``strict``).
        statistics: Tensors that were updated as running statistics, which torch never records.
        memory: Looks for writes past torch.
    """

    def __init__(
        self,
        tensors: Mapping[int, torch.Tensor],
        refuse: Callable[[int, str], None],
        *,
        strict: bool,
    ) -> None:
        """Watch these tensors, which are no views.

        Args:
            tensors: By slot.
            refuse: Raises.
            strict: They require grad: look whether each write gives them another ``grad_fn``.
        """
        super().__init__()
        self.opaque = False
        self.statistics: set[int] = set()
        self.memory: MemoryWatch | None = None
        self._tensors = tensors
        self._refuse = refuse
        self._strict = strict
        self._slots = {storage_key(tensor): slot for slot, tensor in tensors.items()}
        # For each slot written to, the `grad_fn` from before: after the write it must be another.
        self._pending: dict[int, Any] = {}

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an ATen op, and look whether what it writes is recorded."""
        if _from_within(func):
            return func(*args, **kwargs)
        # Its results are marked when gradients are on again.
        watched = self._pending or not torch.is_grad_enabled()
        # Asked only where it matters, since it walks the stack.
        inside = bool(watched) and autograd.in_custom_function()
        if not inside:
            self._look()
        if self.memory is not None:
            self.memory.look(self._refuse)
        written = [
            (self._slots[key], tensor)
            for tensor in written_arguments(func, args, kwargs)
            if (key := storage_key(tensor)) in self._slots
        ]
        for slot, tensor in written:
            self._note(func, slot, tensor, inside)
        result = func(*args, **kwargs)
        if self.memory is not None and written:
            # What torch itself has written is no surprise at the next look.
            self.memory.take(slot for slot, _ in written)
        return result

    def _note(self, func: Any, slot: int, tensor: torch.Tensor, inside: bool) -> None:
        whole = self._tensors[slot]
        # Others carry no derivative that could be lost.
        if not (whole.is_floating_point() or whole.is_complex()):
            return
        if updates_statistics(func):
            self.statistics.add(slot)
            return
        if not inside:
            if not torch.is_grad_enabled():
                self._refuse(slot, "under `torch.no_grad()`")
            if tensor is not whole and base_of(tensor) is not whole:
                self._refuse(slot, "through `detach()` or `.data`")
            if autograd.made_without_grad(tensor):
                self._refuse(slot, "through a view made under `torch.no_grad()`")
        # What a custom function, or an op from elsewhere, records is up to its own code.
        self.opaque |= inside or func.namespace != "aten"
        if self._strict:
            # The first of several writes counts: within a custom function nobody looks in between.
            self._pending.setdefault(slot, whole.grad_fn)

    def _look(self) -> None:
        for slot, before in self._pending.items():
            if self._tensors[slot].grad_fn is before:
                self._refuse(slot, "by an operation or a torch.autograd.Function that hides it")
        self._pending.clear()

    def finish(self) -> None:
        """After the run."""
        self._look()
        if self.memory is not None:
            self.memory.look(self._refuse)
        keys = {slot: key for key, slot in self._slots.items()}
        for slot, tensor in self._tensors.items():
            if storage_key(tensor) != keys[slot]:
                self._refuse(slot, "by giving it other memory (`.data = `, `set_`)")


def _from_within(op: Any) -> bool:
    """Whether it comes from within another op, where no error can pass."""
    return op is torch.ops.aten.detach.default or op.namespace == "prim"


class MemoryWatch:
    """Looks for writes past torch (numpy, through shared memory), by comparing contents."""

    def __init__(self, tensors: Mapping[int, torch.Tensor]) -> None:
        # The same memory, and no part of what autograd records.
        self._tensors = {slot: tensor.detach() for slot, tensor in tensors.items()}
        self._before: dict[int, torch.Tensor] = {}
        self.take(tensors)

    def take(self, slots: Any) -> None:
        """Take contents as they are for known."""
        for slot in slots:
            self._before[slot] = _bytes(self._tensors[slot]).clone()

    def look(self, refuse: Callable[[int, str], None]) -> None:
        """Compare with what is known."""
        for slot, before in self._before.items():
            if not torch.equal(_bytes(self._tensors[slot]), before):
                refuse(slot, "past torch (by numpy, through shared memory)")


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


class single_views(CallMode):
    """Has operations that return several views return views that may be written to.

    Autograd refuses writes to parts from ``unbind`` and the like, which iteration uses.
    """

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a torch function; of several views, make single ones."""
        found = func(*args, **kwargs)
        if func not in _SEVERAL_VIEWS or not args or not isinstance(args[0], torch.Tensor):
            return found
        whole = args[0]
        if whole.is_conj() or whole.is_neg():
            return found
        return type(found)(
            whole.as_strided(part.shape, part.stride(), part.storage_offset()) for part in found
        )


_NAMES = [
    "unbind",
    "split",
    "chunk",
    "tensor_split",
    "hsplit",
    "vsplit",
    "dsplit",
    "split_with_sizes",
]
_SEVERAL_VIEWS = {
    getattr(where, name)
    for name in _NAMES
    for where in (torch, torch.Tensor)
    if hasattr(where, name)
}
