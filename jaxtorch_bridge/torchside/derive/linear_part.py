"""A function together with its derivative: the ladder of ways to compute it.

1. ``saved``: forward and backward graphs captured together; the forward saves what the
   backward needs, and nothing is computed twice.
2. ``func``: the function again, under ``torch.func.vjp`` (forwards: ``torch.func.jvp``).
3. ``autograd``: the function again, under ``torch.autograd.grad`` (forwards: twice).
4. An error that names what failed at each rung.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from ...config import settings
from ...errors import DifferentiationError
from ...planner.array_signature import ArraySig
from ..closure.closure_state import ClosureGuard
from ..functions import transforms
from ..functions.graph_capture import NotCapturedError, capture, dependent_outputs
from ..functions.source import Core, Source, tangent_sig
from ..op.program import Program
from ..op.torch_op import TorchOp
from .derived_function import PULLBACK_WORDS, Derived, derive
from .refusals import differentiable_source
from .saved.joint_graphs import JointGraphs, SavedPullback, capture_joint

if TYPE_CHECKING:
    from ..batch.batched_linear_part import BatchedLinearized


@dataclass(frozen=True)
class Kernel:
    """An op and the operands that it reads.

    Attributes:
        op: What to run.
        operands: For each of its operands, which operand of the linear call it is: inputs,
            residuals and linear operands counted through.
    """

    op: TorchOp
    operands: tuple[int, ...]


class Linearized:
    """A function together with its derivative at the point where it is evaluated.

    Attributes:
        op: The function.
        source: What it computes.
        wrt: Inputs that carry a tangent.
        rung: Which rung of the ladder its pullback takes.
        forward: The op that computes outputs and residuals: the function's own if there are
            none.
        residuals: What ``forward`` returns behind the function's outputs.
        diff_outputs: Outputs that carry a tangent.
        grad_inputs: Those of ``wrt`` that any of these outputs depends on.
        failures: Words on the rungs above that did not work.
        saved_bytes: Bytes that saving residuals keeps, or would keep; None if it cannot be.
    """

    def __init__(
        self,
        op: TorchOp,
        wrt: tuple[int, ...],
        rung: Literal["saved", "func", "autograd", "zero"],
        *,
        graphs: JointGraphs | None = None,
        diff_outputs: tuple[int, ...] = (),
        grad_inputs: tuple[int, ...] = (),
        failures: tuple[str, ...] = (),
        saved_bytes: int | None = None,
    ) -> None:
        assert op.source is not None
        self.op = op
        self.label = f"{op.label} (derivative)"
        self.source: Source = op.source
        self.wrt = wrt
        self.rung = rung
        self.diff_outputs = diff_outputs
        self.grad_inputs = grad_inputs
        self.failures = failures
        self.saved_bytes = saved_bytes
        self.guard = ClosureGuard(self.source.closure)
        self._graphs = graphs
        self._kernels: dict[Any, Kernel] = {}
        self.batched_forms: dict[Any, BatchedLinearized] = {}
        self._derived: dict[Any, tuple[Derived, Kernel]] = {}
        self.forward = self._forward()
        self.residuals: tuple[ArraySig, ...] = self.forward.outputs[len(op.outputs) :]

    def __repr__(self) -> str:
        return f"Linearized({self.op.key}, wrt={self.wrt}, {self.rung})"

    @property
    def fresh(self) -> bool:
        """Whether the function's surroundings are still those that were traced."""
        return self.guard.holds

    @property
    def ops(self) -> tuple[TorchOp, ...]:
        """The ops that it owns."""
        return () if self.forward is self.op else (self.forward,)

    @property
    def residual_bytes(self) -> int:
        """Bytes kept between forward and backward, besides inputs and outputs."""
        return sum(sig.size_bytes for sig in self.residuals)

    @property
    def words(self) -> tuple[str, ...]:
        """Lines for `explain`."""
        if self.rung == "zero":
            rung = "zero: no output depends on them"
        elif self.rung == "saved":
            rung = f"saved residuals, {self.residual_bytes} bytes in {len(self.residuals)} arrays"
            rung += "; recomputing would keep 0"
        else:
            way = PULLBACK_WORDS[self.rung]
            rung = f"recompute with {way}, {self.residual_bytes} bytes kept"
            if self.saved_bytes is not None:
                rung += f"; saving would keep {self.saved_bytes}"
        names = self.source.names(self.wrt)
        return (f"by {names}: {rung}", *(f"  not {words}" for words in self.failures))

    @property
    def unrolled(self) -> bool:
        """Whether ``jax.vmap`` writes one call for each element into the program."""
        return self.op.unrolled

    @property
    def nonlinear_count(self) -> int:
        """Operands of the linear call before the linear ones: inputs and residuals."""
        return len(self.op.inputs) + len(self.residuals)

    def linear_sigs(self, transposed: bool, ins: Sequence[int], outs: Sequence[int]) -> Any:
        """(operands, results) of the linear part as signatures."""
        tangents = tuple(tangent_sig(self.op.inputs[index], "tangent of") for index in ins)
        moved = tuple(tangent_sig(self.op.outputs[index], "tangent of") for index in outs)
        return (moved, tangents) if transposed else (tangents, moved)

    def kernel(self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]) -> Kernel:
        """What computes tangents of ``outs`` from tangents of ``ins``, or (transposed)
        cotangents of ``ins`` from cotangents of ``outs``."""
        if self._graphs is None:
            return self.function(transposed, ins, outs)
        key = (transposed, ins, outs)
        if key not in self._kernels:
            with self.source.context.scope():
                if transposed:
                    self._kernels[key] = self._saved_pullback(ins, outs)
                else:
                    try:
                        self._kernels[key] = self._saved_pushforward(ins, outs)
                    except NotCapturedError:
                        self._kernels[key] = self.function(transposed, ins, outs)
        return self._kernels[key]

    def function(self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]) -> Kernel:
        """The same as a function of the inputs as well, to be differentiated again."""
        key = (transposed, ins, outs)
        if key not in self._derived:
            with self.source.context.scope():
                derived = derive(
                    self.source,
                    "pull" if transposed else "push",
                    ins,
                    outs,
                    seeds=self.source.seeds_of_repeats,
                    again=True,
                )
                op = derived.program.op(derived.source.label, derived.source.key, derived.source)
                op.belongs_to(self.op)
            core = len(self.source.inputs)
            count = len(outs) if transposed else len(ins)
            linear = range(self.nonlinear_count, self.nonlinear_count + count)
            states = self._state_places() if derived.source.seeds else ()
            self._derived[key] = (derived, Kernel(op, (*range(core), *linear, *states)))
        return self._derived[key][1]

    def batched(
        self,
        size: int,
        dims: tuple[int | None, ...],
        transposed: bool,
        ins: tuple[int, ...],
        outs: tuple[int, ...],
    ) -> BatchedLinearized | None:
        """See `batched_linear.batch_linear`."""
        from ..batch.batched_linear_part import batch_linear

        return batch_linear(self, size, dims, transposed, ins, outs)

    def _state_places(self) -> tuple[int, ...]:
        """Which of the operands hold the key, or the generators' states of the forward run."""
        core = len(self.source.inputs)
        if self.source.seeds:
            return tuple(range(core, len(self.op.inputs)))
        found = [i for i, sig in enumerate(self.residuals) if sig.path.startswith("random state")]
        return tuple(len(self.op.inputs) + i for i in found)

    def _forward(self) -> TorchOp:
        source, graphs = self.source, self._graphs
        tag = f"wrt{','.join(map(str, self.wrt))}"
        if graphs is None:
            if not source.draws or self.rung == "zero":
                return self.op
            # Forward and backward must draw the same: the states travel between them.
            program = self.op.program or Program(
                source.function,
                source.inputs,
                source.outputs,
                source,
                source.context,
                eager=True,
            )
            op = replace(program, gives_states=True).op(
                f"{source.label} (forward)", f"{self.op.key}/random/{tag}"
            )
        else:
            program = Program(
                graphs.run_forward,
                source.inputs,
                (*source.outputs, *graphs.residuals),
                source,
                source.context.without_grad(),
                seeds=source.seeds,
                gives_states=source.draws,
                weights=graphs.weights_read_backward,
                gives_versions=bool(graphs.weights_read_backward),
                guard=self.guard,
            )
            op = program.op(
                f"{source.label} (forward with residuals)", f"{self.op.key}/forward/{tag}"
            )
        op.primal = self
        return op

    def _saved_pullback(self, ins: tuple[int, ...], outs: tuple[int, ...]) -> Kernel:
        assert self._graphs is not None
        saved = self._graphs.pullback(ins, outs)
        cotangents, gradients = (
            tuple(replace(sig, path=f"co{sig.path}") for sig in sigs)
            for sigs in self.linear_sigs(True, ins, outs)
        )
        tag = f"backward/{','.join(map(str, ins))}:{','.join(map(str, outs))}"
        return self._saved_kernel(saved, saved, cotangents, gradients, "backward", tag)

    def _saved_pushforward(self, ins: tuple[int, ...], outs: tuple[int, ...]) -> Kernel:
        """The backward graph transposed: tangents from the residuals, nothing computed again."""
        assert self._graphs is not None
        saved = self._graphs.pullback(ins, outs)
        tangents, moved = self.linear_sigs(False, ins, outs)
        inputs = (*self._saved_sigs(saved), *tangents)
        core = transforms.transposed(
            saved.run_differentiably, len(inputs) - len(tangents), self._seen_by_torch(moved)
        )
        graph = capture(
            self.source,
            core,
            inputs,
            moved,
            plain_attention=self.source.plain_attention,
        )
        tag = f"linear/{','.join(map(str, ins))}:{','.join(map(str, outs))}"
        return self._saved_kernel(saved, graph, tangents, moved, "forward mode", tag)

    def _seen_by_torch(self, sigs: Sequence[ArraySig]) -> list[Any]:
        device = self.source.device
        return [(sig.shape, getattr(torch, sig.torch_dtype), device) for sig in sigs]

    def _saved_sigs(self, saved: SavedPullback) -> tuple[ArraySig, ...]:
        return (
            *(self.source.inputs[index] for index in saved.inputs),
            *(self.residuals[index] for index in saved.residuals),
        )

    def _saved_kernel(
        self,
        saved: SavedPullback,
        core: Core,
        linear: Sequence[ArraySig],
        results: Sequence[ArraySig],
        word: str,
        tag: str,
    ) -> Kernel:
        """What runs on residuals: (inputs and residuals that it reads, linear) to results."""
        assert self._graphs is not None
        source, first_residual = self.source, len(self.op.inputs)
        weights = self._graphs.weights_read_backward
        program = Program(
            core,
            (*self._saved_sigs(saved), *linear),
            tuple(results),
            source,
            source.context.without_grad(),
            weights=weights,
            checks_versions=bool(weights),
            # Here too: XLA drops a forward whose results nobody needs.
            guard=self.guard,
        )
        op = program.op(f"{source.label} ({word})", f"{self.op.key}/{tag}")
        op.belongs_to(self.op)
        operands = (
            *saved.inputs,
            *(first_residual + index for index in saved.residuals),
            *range(self.nonlinear_count, self.nonlinear_count + len(linear)),
            # The versions are the last residual.
            *([self.nonlinear_count - 1] if weights else []),
        )
        return Kernel(op, operands)


def linearize(op: TorchOp, wrt: tuple[int, ...]) -> Linearized:
    """The derivative by the inputs ``wrt``, from the highest rung that works.

    Raises:
        DifferentiationError: The function hides a derivative from torch, the contract forbids
            it, or no rung works.
    """
    source = differentiable_source(op, wrt)
    failures: list[str] = []
    saved_bytes = None
    if source.terms.residuals == "recompute":
        failures.append("saved residuals: the contract says `residuals: recompute`")
    elif source.terms.autograd_only:
        failures.append("saved residuals: torch.autograd.grad alone was asked for")
    elif source.facts.updates_state:
        failures.append("saved residuals: the function writes to tensors that it closes over")
    elif source.facts.live_draws:
        failures.append(f"saved residuals: {source.facts.live_draws}")
    elif source.keyed and source.facts.strided_draws:
        failures.append(
            "saved residuals: it fills tensors that are not row-major with random numbers, in "
            "another order than a graph"
        )
    elif not source.capturable:
        failures.append("saved residuals: the function could not be traced abstractly")
    else:
        try:
            graphs = capture_joint(source, wrt)
        except NotCapturedError as error:
            failures.append(f"saved residuals: {error}")
        else:
            if graphs is None:
                return Linearized(op, wrt, "zero")
            saved_bytes = sum(sig.size_bytes for sig in graphs.residuals)
            limit = settings.residual_limit_bytes
            if source.terms.residuals == "save" or saved_bytes <= limit:
                return Linearized(
                    op,
                    wrt,
                    "saved",
                    graphs=graphs,
                    diff_outputs=graphs.diff_outputs,
                    grad_inputs=graphs.grad_inputs,
                    saved_bytes=saved_bytes,
                )
            failures.append(
                f"saved residuals: {saved_bytes} bytes are more than the limit of {limit} "
                "(jaxtorch_bridge.settings.residual_limit_bytes)"
            )
    if source.terms.residuals == "save":
        raise DifferentiationError(
            f"{source.label}: the contract says `residuals: save`, but residuals cannot be saved "
            f"here: {failures[-1].partition(': ')[2]}. Say `auto` or `recompute`. "
            f"[{source.terms.residuals_at}]"
        )
    outs = dependent_outputs(source, wrt)
    if not outs:
        return Linearized(op, wrt, "zero")
    linearized = Linearized(
        op, wrt, "autograd", diff_outputs=outs, grad_inputs=wrt, saved_bytes=saved_bytes
    )
    derived = linearized.function(True, wrt, outs)
    assert derived.op.source is not None
    linearized.rung = derived.op.source.engine or "autograd"
    linearized.failures = (*failures, *linearized._derived[True, wrt, outs][0].failures)
    return linearized
