"""A function together with its derivative at a point, and the same for a whole batch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...errors import DifferentiationError, StaleClosureError
from ...planner.array_signature import ArraySig, with_batch
from ..closure.closure_guard import ClosureGuard
from ..functions.graph_capture import NotCapturedError
from ..functions.tensor_function import TensorFunction
from ..op.make_op import op_of_program
from ..op.torch_op import Function, LinearOp, SavingForward, TorchOp
from .derived_function import derive
from .engines.engine import DerivedFunction, Goal, Kept, Kind, linear_sigs
from .linear_call import Dims, LinearCall
from .refused_outputs import NOTHING_REFUSED, Refused
from .tape.closure_versions import ClosureVersions


class Linearized:
    """A function together with its derivative at the point where it is evaluated.

    Attributes:
        op: The function.
        fn: What it computes.
        wrt: Inputs that carry a tangent.
        engine: How its first pullback is found: ``tape``, what differentiates the function that
            runs again (``func`` or ``autograd``), or ``zero``.
        forward: The op that computes outputs and residuals: the function's own if there are
            none.
        residuals: What ``forward`` returns behind the function's outputs.
        diff_outputs: Outputs that carry a tangent.
        grad_inputs: Those of ``wrt`` that any of these outputs depends on.
        failures: Words on the engines that did not work.
        refused: Outputs whose derivative must not be used, with the reason.
        tape_bytes: Bytes that torch keeps for the backward; None if only a run could tell.
    """

    def __init__(
        self,
        op: TorchOp,
        fn: TensorFunction,
        wrt: tuple[int, ...],
        guard: ClosureGuard,
        *,
        kept: Kept | None = None,
        again: DerivedFunction | None = None,
        diff_outputs: tuple[int, ...] = (),
        failures: Sequence[str] = (),
        refused: Refused = NOTHING_REFUSED,
        repeats: bool = True,
        way: str = "linearize",
    ) -> None:
        """Of what was found.

        Args:
            op: The function.
            fn: What it computes.
            wrt: Inputs that carry a tangent.
            guard: Tells when the function's surroundings have changed since it was looked at.
            kept: Forward and linear part, where an engine keeps residuals.
            again: Otherwise the pullback of ``diff_outputs``; None if there are none.
            diff_outputs: Outputs that depend on ``wrt``.
            failures: Words on what did not work.
            refused: See the class.
            repeats: The linear part draws what a forward run drew, which there may not be.
            way: The step that gives it: ``linearize``, or ``transposed`` by these outputs.
        """
        self.op = op
        asked = (wrt,) if way == "linearize" else (wrt, diff_outputs)
        self._steps = op.then(way, *asked)
        self._repeats = repeats
        self.label = f"{op.label} (derivative)"
        self.fn = fn
        self.wrt = wrt
        self.failures = tuple(failures)
        self.refused = refused
        self.tape_bytes = None if kept is None else kept.size_bytes
        self._kept = kept
        self._linear_calls: dict[tuple[bool, tuple[int, ...], tuple[int, ...]], LinearCall] = {}
        self._derived: dict[
            tuple[bool, tuple[int, ...], tuple[int, ...]], tuple[DerivedFunction, LinearCall]
        ] = {}
        self.batched_forms: dict[Any, BatchedLinearized] = {}
        if kept is not None:
            self.engine = kept.engine
            self.diff_outputs, self.grad_inputs = kept.diff_outputs, kept.grad_inputs
            self.guard = kept.guard
        else:
            self.engine = "zero" if again is None else again.fn.transform or "autograd"
            self.diff_outputs, self.grad_inputs = diff_outputs, wrt if diff_outputs else ()
            # From before anything was captured: a change meanwhile makes this out of date.
            self.guard = guard
        self._again = again
        self._versions: ClosureVersions | None = None
        # What these were when the forward ran.
        self._then: int | None = None
        self.forward = self._forward()
        self.residuals: tuple[ArraySig, ...] = self.forward.outputs[len(op.outputs) :]
        if again is not None:
            key = (True, wrt, diff_outputs)
            # Built already, to know that it works.
            self._derived[key] = (again, self._linear_call_of(again, *key))

    def __repr__(self) -> str:
        return f"Linearized({self.op.key}, wrt={self.wrt}, {self.engine})"

    def as_of_now(self, is_vjp: bool) -> Linearized:
        """The same for a forward that has just run, here and not in a compiled program.

        Args:
            is_vjp: Cotangents alone will be asked for, which a tape's own token tells about.
        """
        if is_vjp and self._kept is not None:
            return self
        if self._versions is None:
            self._versions = ClosureVersions(self.fn)
        if self._versions.now()[0] == 0:
            return self  # there are none
        made = copy.copy(self)
        made._then = self._versions.now()[0]
        # They refer to this one.
        made.batched_forms = {}
        return made

    def refuse_changed(self) -> None:
        """Object to a linear part that would go by other weights than its forward did.

        Raises:
            StaleClosureError: It would: tensors that the function closes over have changed.
        """
        versions = self._versions
        if versions is None or self._then is None or versions.now()[0] == self._then:
            return
        what = self.guard.change or "a tensor that the function closes over was changed"
        raise StaleClosureError(
            f"{self.label}: {what} since its forward ran, and it goes by what was there then. "
            "Take the derivative again, or pass it as an argument."
        )

    @property
    def fresh(self) -> bool:
        """Whether the function's surroundings are still those that were traced."""
        return self.guard.holds

    @property
    def residual_bytes(self) -> int:
        """Bytes kept between forward and backward, besides inputs and outputs."""
        return sum(sig.size_bytes for sig in self.residuals)

    @property
    def words(self) -> tuple[str, ...]:
        """Lines for `explain`."""
        if self._kept is not None:
            how = self._kept.words
        elif self._again is None:
            how = "zero: no output depends on them"
        else:
            way = self._again.fn.way
            how = f"recompute with {way}, {self.residual_bytes} bytes kept"
        names = self.fn.names(self.wrt)
        return (
            f"by {names}: {how}",
            *(f"  not {words}" for words in self.failures),
            *(f"  refused: {words}" for words in self.refused.values()),
        )

    @property
    def under_checkpoint(self) -> str:
        """What policies of `jax.checkpoint` make of what is kept; empty if nothing is."""
        return "" if self._kept is None else self._kept.under_checkpoint

    @property
    def unrolled(self) -> bool:
        """Whether ``jax.vmap`` writes one call for each element into the program."""
        return self.op.unrolled

    @property
    def nonlinear_count(self) -> int:
        """Operands of the linear call before the linear ones: inputs and residuals."""
        return len(self.op.inputs) + len(self.residuals)

    def linear_sigs(
        self, transposed: bool, ins: Sequence[int], outs: Sequence[int]
    ) -> tuple[tuple[ArraySig, ...], tuple[ArraySig, ...]]:
        """(operands, results) of the linear part as signatures."""
        return linear_sigs(self.fn, transposed, ins, outs)

    def linear_call(
        self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]
    ) -> LinearCall:
        """What computes tangents of ``outs`` from tangents of ``ins``, or (transposed)
        cotangents of ``ins`` from cotangents of ``outs``."""
        if self._kept is None:
            return self.function(transposed, ins, outs)
        key = (transposed, ins, outs)
        # Each pair is another cut of the same graphs, made when JAX first asks for it.
        if key not in self._linear_calls:
            try:
                # JAX may ask from another thread, with other settings than those of planning.
                with self.fn.context.scope():
                    made = self._kept.linear_call(transposed, ins, outs)
            except NotCapturedError:
                # The backward graph cannot be transposed: the function runs again.
                self._linear_calls[key] = self.function(transposed, ins, outs)
            else:
                op = op_of_program(
                    made.program,
                    f"{self.fn.label} ({made.word})",
                    f"{self.op.key}/{made.tag}",
                    LinearOp(),
                    self.op.family,
                    (*self._steps, ("linear_call", *key)),
                )
                self._linear_calls[key] = LinearCall(op, made.operands)
        return self._linear_calls[key]

    def batchable(
        self, dims: Dims, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]
    ) -> LinearCall:
        """What to make a batch of, whose inputs and residuals have these axes."""
        linear_call = self.linear_call(transposed, ins, outs)
        # A tape is of one run: it can serve many cotangents, and not many inputs.
        of_inputs = any(dim is not None for dim in dims)
        if linear_call.op.program.batched_core is not None and of_inputs:
            return self.function(transposed, ins, outs)
        return linear_call

    def function(self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]) -> LinearCall:
        """The same as a function of the inputs as well, to be differentiated again."""
        key = (transposed, ins, outs)
        if key not in self._derived:
            kind: Kind = "pull" if transposed else "push"
            with self.fn.context.scope():
                derived = derive(Goal(self.fn, kind, ins, outs, self._seeds))
            self._derived[key] = (derived, self._linear_call_of(derived, *key))
        return self._derived[key][1]

    def batched(
        self,
        size: int,
        dims: Dims,
        transposed: bool,
        ins: tuple[int, ...],
        outs: tuple[int, ...],
    ) -> BatchedLinearized | None:
        """See `batch_linear`."""
        return batch_linear(self, size, dims, transposed, ins, outs)

    def _linear_call_of(
        self,
        derived: DerivedFunction,
        transposed: bool,
        ins: tuple[int, ...],
        outs: tuple[int, ...],
    ) -> LinearCall:
        """Of a derivative as a function."""
        fn = derived.fn
        op = op_of_program(
            derived.program,
            fn.label,
            fn.key,
            Function(fn),
            self.op.family,
            (*self._steps, ("function", transposed, ins, outs)),
        )
        count = len(outs) if transposed else len(ins)
        linear = range(self.nonlinear_count, self.nonlinear_count + count)
        states = self._state_places() if fn.seeds else ()
        return LinearCall(op, (*range(len(self.fn.inputs)), *linear, *states))

    def _state_places(self) -> tuple[int, ...]:
        """Which of the operands hold the key, or the generators' states of the forward run."""
        count = len(self.fn.inputs)
        if self.fn.seeds:
            return tuple(range(count, len(self.op.inputs)))
        # So named by `Generators.sigs`.
        found = [i for i, sig in enumerate(self.residuals) if sig.path.startswith("random state")]
        return tuple(len(self.op.inputs) + i for i in found)

    @property
    def _seeds(self) -> tuple[ArraySig, ...]:
        return self.fn.seeds_of_repeats if self._repeats else self.fn.seeds

    def _forward(self) -> TorchOp:
        fn, op = self.fn, self.op
        tag = f"wrt{','.join(map(str, self.wrt))}"
        if self._kept is not None:
            program, word, kind = self._kept.forward, "forward with residuals", "forward"
        elif not fn.draws or self._again is None or not self._repeats:
            # Nothing has to travel but the inputs, which JAX has.
            return op
        else:
            # Forward and backward must draw the same: the states travel between them.
            program, word, kind = replace(op.program, gives_states=True), "forward", "random"
        return op_of_program(
            program,
            f"{fn.label} ({word})",
            f"{op.key}/{kind}/{tag}",
            SavingForward(self),
            op.family,
            (*self._steps, ("forward",)),
        )


class BatchedLinearized:
    """The linear part of a derivative for a whole batch; see `Linearized`.

    Linear operands and results have the batch first; inputs and residuals have it where
    ``dims`` says, or not at all.

    Attributes:
        base: Of one element.
        size: Of the batch.
        dims: For every input and residual.
        op: The batched function, where a forward of it saves the residuals. It stays what it was
            then: programs that hold the forward must not get another.
    """

    def __init__(
        self,
        base: Linearized | BatchedLinearized,
        size: int,
        dims: Dims,
        op: TorchOp | None = None,
    ) -> None:
        self.op = op
        self.base = base
        self.size = size
        self.dims = dims
        self.label: str = base.label
        self.fn: TensorFunction = base.fn
        self.wrt: tuple[int, ...] = base.wrt
        self.diff_outputs: tuple[int, ...] = base.diff_outputs
        self.grad_inputs: tuple[int, ...] = base.grad_inputs
        self.residuals: tuple[ArraySig, ...] = base.residuals
        self.batched_forms: dict[Any, BatchedLinearized] = {}

    @property
    def unrolled(self) -> bool:
        """See `Linearized`."""
        return self.base.unrolled

    def __repr__(self) -> str:
        return f"Batched({self.base!r}, {self.size})"

    def refuse_changed(self) -> None:
        """See `Linearized`."""
        self.base.refuse_changed()

    @property
    def nonlinear_count(self) -> int:
        """See `Linearized`."""
        return self.base.nonlinear_count

    def linear_sigs(
        self, transposed: bool, ins: Sequence[int], outs: Sequence[int]
    ) -> tuple[tuple[ArraySig, ...], tuple[ArraySig, ...]]:
        """See `Linearized`."""
        operands, results = self.base.linear_sigs(transposed, ins, outs)
        return (
            with_batch(operands, (0,) * len(operands), self.size),
            with_batch(results, (0,) * len(results), self.size),
        )

    def linear_call(
        self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]
    ) -> LinearCall:
        """See `Linearized`."""
        return self._batched(self.base.batchable(self.dims, transposed, ins, outs))

    def batchable(
        self, dims: Dims, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]
    ) -> LinearCall:
        """See `Linearized`."""
        inner = self.base.batchable((*self.dims, *dims), transposed, ins, outs)
        return self._batched(inner)

    def function(self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]) -> LinearCall:
        """See `Linearized`."""
        return self._batched(self.base.function(transposed, ins, outs))

    def batched(
        self,
        size: int,
        dims: Dims,
        transposed: bool,
        ins: tuple[int, ...],
        outs: tuple[int, ...],
    ) -> BatchedLinearized | None:
        """See `batch_linear`."""
        return batch_linear(self, size, dims, transposed, ins, outs)

    def _batched(self, linear_call: LinearCall) -> LinearCall:
        dims = linear_call.batch_axes(self.dims)
        # JAX has been told that there is a batch: where one call fails there must be a loop.
        found = linear_call.op.family.batched(linear_call.op, self.size, dims, loop=True)
        if found.op is None:
            raise DifferentiationError(
                f"{linear_call.op.label}: no derivative for a batch of {self.size}: "
                f"{found.failure}. Call the function under jax.lax.map instead of jax.vmap."
            )
        return LinearCall(found.op, linear_call.operands)


def batched_linearized(
    base: Linearized | BatchedLinearized, size: int, dims: Dims, op: TorchOp | None = None
) -> BatchedLinearized:
    """The batched form, always the same object for the same batch and function."""
    found = base.batched_forms.get((size, dims))
    if found is None or op not in (None, found.op):
        found = base.batched_forms[size, dims] = BatchedLinearized(base, size, dims, op)
    return found


def batch_linear(
    base: Linearized | BatchedLinearized,
    size: int,
    dims: Dims,
    transposed: bool,
    ins: tuple[int, ...],
    outs: tuple[int, ...],
) -> BatchedLinearized | None:
    """The batched form if one call can do what is asked, otherwise None.

    Args:
        base: Of one element.
        size: Of the batch.
        dims: Batch axes of inputs and residuals.
        transposed: See `Linearized.linear_call`.
        ins: Likewise.
        outs: Likewise.
    """
    linear_call = base.batchable(dims, transposed, ins, outs)
    found = linear_call.op.family.batched(linear_call.op, size, linear_call.batch_axes(dims))
    # None: JAX calls the linear part once for each element.
    return None if found.op is None else batched_linearized(base, size, dims)
