"""Derivatives of functions that write to their arguments, as they declare.

What they compute is a function of the old values, and its results are the new ones. Torch does not
record every write (those under ``no_grad``, through ``detach()`` or ``.data``): a derivative would
be wrong in silence, so these are looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch

from ..._compat.torch.fake_tensors import is_fake
from ..._compat.torch.func_transforms import is_transformed
from ...errors import DifferentiationError
from ...planner.array_signature import ArraySig
from ..observe.abstract_evaluation import fake_inputs
from ..observe.autograd_recording import MemoryWatch, Recording, single_views
from .functionalized_writes import functional
from .graph_capture import NotCapturedError, abstractly
from .saved_values import saving_values
from .tensor_function import Core, TensorFunction


@dataclass(eq=False)
class Writes:
    """What a function writes to.

    Attributes:
        label: Of the function.
        names: The arguments, as declared.
        slots: Their tensors among the inputs.
        inputs: Of the function.
        function: Writes to the tensors that it is given.
        traced: Whether it could be evaluated abstractly.
    """

    label: str
    names: tuple[str, ...]
    slots: tuple[int, ...]
    inputs: tuple[ArraySig, ...]
    function: Core
    traced: bool
    _statistics: set[int] = field(default_factory=set)
    _checked: bool = False
    _memory_seen: bool = False

    @property
    def moving(self) -> tuple[int, ...]:
        """Those of ``slots`` that a derivative can go through."""
        return tuple(slot for slot in self.slots if self.inputs[slot].differentiable)

    def check(self, fn: TensorFunction, wrt: Sequence[int]) -> None:
        """Look for writes that torch does not record, by evaluating abstractly.

        Where that is impossible, `recorded` looks for them in each run.

        Raises:
            DifferentiationError: There is one, or the gradient by running statistics is asked for.
        """
        if not self.traced:
            return
        if not self._checked:
            watch = self._evaluate(fn, strict=False)
            if watch.opaque:
                # Only autograd itself knows what these record.
                watch = self._evaluate(fn, strict=True)
            self._statistics |= watch.statistics
            self._checked = True
        # Harmless unless the derivative goes by them: torch takes them for constants.
        for slot in sorted(self._statistics & set(wrt)):
            self.refuse(slot, _AS_STATISTICS)

    def _evaluate(self, fn: TensorFunction, *, strict: bool) -> Recording:
        try:
            with abstractly(fn, fn.plain_attention) as mode, torch.enable_grad():
                copies = [one.clone() for one in fake_inputs(mode, self.inputs, fn.device)]
                if strict:
                    for slot in self.moving:
                        # A clone: a leaf that requires grad may not be written to.
                        copies[slot] = copies[slot].requires_grad_().clone()
                watched = {slot: copies[slot] for slot in self.slots}
                watch = Recording(watched, self.refuse, strict=strict)
                with watch:
                    self.function(*copies)
                watch.finish()
                for copy in watched.values():
                    copy.detach_()  # it may be part of what it holds
        except NotCapturedError as error:
            if isinstance(error.__cause__, DifferentiationError):
                # What `refuse` raised within the evaluation.
                raise error.__cause__ from None
            raise DifferentiationError(
                f"{self.label}: cannot tell whether torch records what it writes to "
                f"{self._listed}: {error}. Write the out-of-place form, or stop the gradient with "
                "jax.lax.stop_gradient."
            ) from error
        return watch

    @property
    def _listed(self) -> str:
        return ", ".join(f"`{name}`" for name in self.names)

    def refuse(self, slot: int, how: str) -> NoReturn:
        """Object to a write."""
        raise DifferentiationError(
            f"{self.label}: cannot differentiate: the function writes to "
            f"`{self.inputs[slot].path}` {how}, which torch does not record, so the gradient would "
            "be wrong without a word. Write to the argument itself or to a view of it, with "
            "torch's gradients on; or stop the gradient with jax.lax.stop_gradient."
        )

    def on_copies(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        """The function, which writes to copies."""
        copies = list(tensors)
        for slot in self.slots:
            copies[slot] = tensors[slot].clone()
        return self.function(*copies)

    def recorded(self, *tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        """The function on copies, for autograd to record as it runs.

        Raises:
            DifferentiationError: It writes in a way that autograd does not record.
        """
        copies = list(tensors)
        for slot in self.slots:
            copies[slot] = tensors[slot].clone()
        if not torch.is_grad_enabled() or any(is_transformed(one) for one in tensors):
            return self.function(*copies)
        for slot in self.moving:
            # What a write makes of a tensor that requires grad tells whether it was recorded.
            if not copies[slot].requires_grad:
                copies[slot] = copies[slot].requires_grad_().clone()

        def refuse(slot: int, how: str) -> None:
            if how is not _AS_STATISTICS or tensors[slot].requires_grad:
                self.refuse(slot, how)

        watched = {slot: copies[slot] for slot in self.slots}
        with saving_values(list(watched.values())), single_views():
            watch = Recording(watched, refuse, strict=True)
            # As in calls: what torch does not see is looked for in the first run.
            if not self._memory_seen and not any(map(is_fake, copies)):
                watch.memory = MemoryWatch(watched)
            with watch:
                found = list(self.function(*copies))
            watch.finish()
        self._memory_seen |= watch.memory is not None
        for slot in watch.statistics:
            refuse(slot, _AS_STATISTICS)
        return found


_AS_STATISTICS = "as running statistics"


def with_writes(
    fn: TensorFunction, names: Sequence[str], slots: Sequence[int], writing: Callable[..., Any]
) -> TensorFunction:
    """The tensor function of a callable that writes to its arguments.

    Args:
        fn: Its core writes to copies.
        names: The arguments, as declared.
        slots: Their tensors among the inputs.
        writing: The function, which writes to the tensors that it is given.
    """
    traced = fn.inference.traced
    writes = Writes(fn.label, tuple(names), tuple(slots), fn.inputs, writing, traced)
    stand_ins: tuple[Core, ...] = (writes.recorded,)
    # Of what TorchScript runs torch.func sees little.
    if traced and not fn.closure.scripted:
        stand_ins = (functional(writes.on_copies), *stand_ins)
    return replace(fn, refuse_writes=writes.check, stand_ins=stand_ins)
