"""One run of a function that autograd records, and its derivative from that record."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge, increment_version

from ...._compat.torch.autograd_graph import has_own_backwards, nodes_behind
from ...._compat.torch.func_transforms import batch_level, unwarned_fallbacks
from ...._compat.torch.storages import memory_key, storage_use_count
from ...._compat.torch.tensors import use_count, write_count
from ...closure.garbage import is_still
from ...functions.tensor_function import Core
from ...functions.transforms import as_cotangents, conjugated
from ...functions.unrecorded_backward import nothing_recorded
from ...modules.recorded_calls import going_back, recording
from ...observe.hidden_gradients import Judgement
from .saved_tensors import SavedTensors

_NOWHERE: Mapping[int, torch.Tensor] = {}


class Tape:
    """What autograd recorded of one run: nothing of it lies in XLA's memory.

    Attributes:
        device: ``cpu``, or the GPU that the run was on.
        size_bytes: Memory that it keeps; None if nobody could count it.
        saved: How many tensors autograd saved, and the memory of these alone; None if nobody could
            count them.
        judgement: What was seen of the run that bears on derivatives.
    """

    judgement = Judgement()

    def __init__(
        self,
        leaves: dict[int, torch.Tensor],
        edges: Sequence[GradientEdge | None],
        saved: SavedTensors | None,
        device: str,
        size_bytes: int | None,
        borrowed: bool = False,
    ) -> None:
        """Of one run.

        Args:
            leaves: Inputs to differentiate by, by their number.
            edges: For each result, where its gradient comes in; None where nothing was recorded.
            saved: The hooks; None if there were none.
            device: See the class.
            size_bytes: See the class.
            borrowed: The leaves have XLA's memory until the call ends.
        """
        self._leaves = leaves
        self._borrowed = borrowed
        # Not the outputs: one that nobody saved is freed.
        self._edges = edges
        self._hooks = saved
        self.device = device
        self.size_bytes = size_bytes
        self.saved = None if saved is None else (saved.count, saved.size_bytes)

    @property
    def has_own_backwards(self) -> bool:
        """Whether it goes through a ``torch.autograd.Function``."""
        return has_own_backwards([edge.node for edge in self._edges if edge is not None])

    @property
    def nodes(self) -> list[Any]:
        """What it goes through."""
        return list(nodes_behind([edge.node for edge in self._edges if edge is not None]))

    @contextlib.contextmanager
    def reading(self, operands: Sequence[torch.Tensor]) -> Iterator[None]:
        """While inputs that it refers to are read from these."""
        if self._hooks is not None:
            self._hooks.operands = operands
        try:
            yield
        finally:
            if self._hooks is not None:
                self._hooks.operands = ()

    def close(self, *, kept: bool = False) -> bool:
        """It is used up.

        Args:
            kept: Somebody has kept inputs of such a run before.

        Returns:
            Whether somebody keeps some.
        """
        # Or a node that goes on living would keep them.
        return self._borrowed and not _emptied(self._leaves, kept=kept)

    def pull(
        self,
        operands: Sequence[torch.Tensor],
        ins: Sequence[int],
        outs: Sequence[int],
        cotangents: Sequence[torch.Tensor],
        *,
        label: str,
        keep: bool = False,
        batched: Literal["", "older rules", "newer rules"] = "",
        into: Mapping[int, torch.Tensor] = _NOWHERE,
    ) -> list[torch.Tensor | None]:
        """Cotangents of inputs, in JAX's convention; None where nothing depends on one.

        Args:
            operands: The inputs of the run, where they are now.
            ins: Inputs whose cotangents are asked for.
            outs: Outputs that have a cotangent.
            cotangents: One for each of ``outs``.
            label: The callable's name, for messages.
            keep: It will be asked again.
            batched: The cotangents have a batch axis in front, and so will the results: by which
                of torch's rules, see `batch_rules`. Empty: they have none.
            into: For some of ``ins`` that are real, where to write its cotangent as soon as it is
                found.

        Raises:
            DifferentiationError: The run left torch, and recorded nothing of any output.
        """
        edges, weights = [], []
        for index, cotangent in zip(outs, conjugated(cotangents), strict=True):
            edge = self._edges[index]
            # None: it depends on no input, maybe in this run alone.
            if edge is not None:
                edges.append(edge)
                weights.append(cotangent)
        asked = [self._leaves[index] for index in ins]
        if self.judgement.left and not any(self._edges):
            raise nothing_recorded(label)
        if not edges:
            return [None] * len(asked)
        # The engine calls these last, with what would be returned, and returns what they give.
        moves = [
            self._leaves[index].register_hook(_moving_to(buffer)) for index, buffer in into.items()
        ]
        try:
            # What the backward runs again is a part of the record.
            with self.reading(operands), recording(), going_back():
                found = _WAYS_BACK[batched](edges, asked, weights, keep)
        finally:
            for move in moves:
                move.remove()
        return [None if one is None else as_cotangents([one])[0] for one in found]


def _go_back(
    edges: Sequence[GradientEdge],
    asked: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
    keep: bool,
    batched: bool = False,
) -> Sequence[torch.Tensor | None]:
    return torch.autograd.grad(
        edges,
        asked,
        cotangents,
        retain_graph=keep,
        allow_unused=True,
        is_grads_batched=batched,
    )


def _go_back_in_one_level(
    edges: Sequence[GradientEdge],
    asked: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
    keep: bool,
) -> Sequence[torch.Tensor | None]:
    with unwarned_fallbacks(), batch_level(len(cotangents[0])) as level:
        found = _go_back(edges, asked, [level.enter(one) for one in cotangents], keep)
        return [None if one is None else level.leave(one) for one in found]


_WAYS_BACK: dict[str, Callable[..., Sequence[torch.Tensor | None]]] = {
    "": _go_back,
    "older rules": functools.partial(_go_back, batched=True),
    "newer rules": _go_back_in_one_level,
}


def _moving_to(buffer: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def move(cotangent: torch.Tensor) -> torch.Tensor:
        # Where it was it is freed, and the next may take its place.
        dense = cotangent.layout is torch.strided
        return buffer.copy_(cotangent) if dense else cotangent

    return move


Memory = Literal["borrowed", "hooked", "copied", "unhooked"]


def record(
    function: Core,
    tensors: Sequence[torch.Tensor],
    wrt: Sequence[int],
    dtypes: Sequence[torch.dtype],
    *,
    memory: Memory,
    saved_bytes: int | None = None,
) -> tuple[list[Any], Tape | None, bool]:
    """Run a function and keep what autograd records.

    Args:
        function: What to run.
        tensors: Its inputs, in XLA's memory.
        wrt: Those to differentiate by.
        dtypes: What the function is to see.
        memory: What the tape holds of the inputs. ``hooked``: references, see `SavedTensors`.
            ``copied``: copies, for functions that keep an input where no hook sees it.
            ``unhooked``: the same without hooks, which ``torch.func`` does not allow inside.
            ``borrowed``: the inputs themselves; the tape must be gone when the call ends.
        saved_bytes: What a run with hooks has kept, for one without; None if there was none.

    Returns:
        The results, which nothing is recorded of, and the tape: none if something besides it
        holds an input (an attribute of a custom function's context), and would outlive the call;
        or if its backward may run layers of a module again, which have what they need as long as
        the call lasts. The last value says whether it is for that.
    """
    device = str(tensors[0].device) if tensors else "cpu"
    by_copy = memory in ("copied", "unhooked")
    saved = None
    if memory in ("hooked", "copied"):
        # Copies are the tape's own memory, and are kept as such.
        saved = SavedTensors(() if by_copy else tensors)
    storages = [tensor.untyped_storage() for tensor in tensors]
    before = [] if by_copy else [storage_use_count(storage._cdata) for storage in storages]
    inputs = [
        # Other tensors than the handler's own: who keeps one of them holds the storage once more.
        tensor.clone() if by_copy and tensor.dtype is dtype else tensor.detach().to(dtype)
        for tensor, dtype in zip(tensors, dtypes, strict=True)
    ]
    for index in wrt:
        # Leaves, as torch's users have them; with the count of writes of what they are made of.
        inputs[index].requires_grad_()
    leaves = {index: inputs[index] for index in wrt}
    with torch.enable_grad(), recording(list(leaves.values())) as calls:
        with contextlib.nullcontext() if saved is None else saved.hooks():
            outputs = list(function(*inputs))
        runs_again = memory != "borrowed" and calls.finish()
    if by_copy:
        _tell_of_writes(tensors, inputs)
    edges = [_edge(output) for output in outputs]
    keys = {storage._cdata for storage in storages}
    results = [_alone(output, keys) for output in outputs]
    del inputs, outputs
    if saved is not None:
        saved.close()
        saved_bytes = saved.size_bytes
    if by_copy and saved_bytes is not None:
        saved_bytes += sum(storage.nbytes() for storage in storages)
    if runs_again:
        return results, None, True
    if saved is None or by_copy:
        tape = Tape(leaves, edges, saved, device, saved_bytes, borrowed=not by_copy)
        return results, tape, False
    if not _emptied(leaves) or _have_more_holders(storages, before):
        return results, None, False
    return results, Tape(leaves, edges, saved, device, saved_bytes), False


def run_plainly(
    function: Core, tensors: Sequence[torch.Tensor], dtypes: Sequence[torch.dtype]
) -> list[Any]:
    """The results of a function, whose backward will run it again; see `record`."""
    inputs = [tensor.detach().to(dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]
    keys = {tensor.untyped_storage()._cdata for tensor in tensors}
    return [_alone(output, keys) for output in function(*inputs)]


def _tell_of_writes(tensors: Sequence[torch.Tensor], copies: Sequence[torch.Tensor]) -> None:
    """A write to a copy counts as one to the input, which calls without a derivative refuse."""
    for tensor, copy in zip(tensors, copies, strict=True):
        if write_count(copy) and copy.dtype is tensor.dtype:
            increment_version(tensor)


def _edge(output: Any) -> GradientEdge | None:
    recorded = isinstance(output, torch.Tensor) and output.requires_grad
    return get_gradient_edge(output) if recorded else None


def _alone(output: Any, keys: set[int]) -> Any:
    """A result without what was recorded, and outside of these memories."""
    if not isinstance(output, torch.Tensor):
        return output
    result = output.detach()
    # As a view of an input it would count as one of its holders.
    return result.clone() if memory_key(result) in keys else result


def _emptied(leaves: dict[int, torch.Tensor], *, kept: bool = False) -> bool:
    """Take XLA's memory from leaves, which their nodes hold; False if somebody else holds one.

    That may be a closure that runs again in the backward, or an attribute that the user reads:
    they get memory of their own.
    """
    held = _are_held(leaves, kept)
    for leaf in leaves.values():
        empty = torch.empty(0, dtype=leaf.dtype, device=leaf.device)
        leaf.data = leaf.detach().clone() if held else empty
    return not held


def _are_held(leaves: dict[int, torch.Tensor], kept: bool) -> bool:
    # One that nobody has seen tells how often a leaf is referred to here, and by its node.
    unseen = {-1: torch.empty(0, requires_grad=True)}
    edge = get_gradient_edge(unseen[-1])
    (allowed,) = _references(unseen)
    held = any(count > allowed for count in _references(leaves))
    if held and not kept:
        # A search through all objects, which takes long in a large process: once a function.
        held = is_still(lambda: any(count > allowed for count in _references(leaves)))
    del edge
    return held


def _references(leaves: dict[int, torch.Tensor]) -> list[int]:
    return [sys.getrefcount(leaf) + use_count(leaf) for leaf in leaves.values()]


def _have_more_holders(storages: Sequence[torch.UntypedStorage], before: Sequence[int]) -> bool:
    return is_still(
        lambda: any(
            storage_use_count(storage._cdata) > count
            for storage, count in zip(storages, before, strict=True)
        )
    )
