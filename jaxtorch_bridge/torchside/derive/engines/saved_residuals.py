"""The engine of saved residuals: a captured forward that returns them, and its backward graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ....config import settings
from ....planner.array_signature import ArraySig
from ...closure.closure_state import ClosureGuard
from ...functions import transforms
from ...functions.graph_capture import capture
from ...functions.source import Core, Source
from ...op.program import Program
from ..saved.joint_graphs import JointGraphs, SavedPullback, capture_joint
from .engine import Goal, KernelProgram, LimitError, linear_sigs


class SavedResiduals:
    """See the module. The function runs once, forward and backward."""

    name = "saved residuals"

    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""
        source = goal.source
        if source.terms.residuals == "recompute":
            return "the contract says `residuals: recompute`"
        if source.terms.autograd_only:
            return "torch.autograd.grad alone was asked for"
        if source.inference.updates_state:
            return "the function writes to tensors that it closes over"
        if source.inference.live_draws:
            return source.inference.live_draws
        if source.keyed and source.inference.strided_draws:
            return (
                "it fills tensors that are not row-major with random numbers, in another order "
                "than a graph"
            )
        return "" if source.capturable else "the function could not be traced abstractly"

    def build(self, goal: Goal) -> SavedGraphs | None:
        """Forward and linear part; None if no output depends on the inputs.

        Raises:
            NotCapturedError: It does not work; says why.
            LimitError: It would keep too much.
        """
        source = goal.source
        graphs = capture_joint(source, goal.ins)
        if graphs is None:
            return None
        size = sum(sig.size_bytes for sig in graphs.residuals)
        limit = settings.residual_limit_bytes
        # Who says `save` has decided.
        if source.terms.residuals != "save" and size > limit:
            raise LimitError(
                f"{size} bytes are more than the limit of {limit} "
                "(jaxtorch_bridge.settings.residual_limit_bytes)",
                size,
            )
        return SavedGraphs(source, graphs, ClosureGuard(source.closure))


@dataclass(frozen=True, eq=False)
class SavedGraphs:
    """The two graphs as programs; see `Kept`.

    Attributes:
        source: What they were captured of.
        graphs: Forward and backward.
        guard: Refuses to run them once they are out of date.
    """

    source: Source
    graphs: JointGraphs
    guard: ClosureGuard

    @property
    def diff_outputs(self) -> tuple[int, ...]:
        """Outputs that carry a tangent."""
        return self.graphs.diff_outputs

    @property
    def grad_inputs(self) -> tuple[int, ...]:
        """Inputs that any of these outputs depends on."""
        return self.graphs.grad_inputs

    @property
    def size_bytes(self) -> int:
        """Bytes that the residuals take."""
        return sum(sig.size_bytes for sig in self.graphs.residuals)

    @property
    def words(self) -> str:
        """What is kept, for `explain`."""
        residuals = self._residuals
        size = sum(sig.size_bytes for sig in residuals)
        return f"saved residuals, {size} bytes in {len(residuals)} arrays; recomputing would keep 0"

    @property
    def forward(self) -> Program:
        """Outputs, then residuals, generator states where it draws, and versions of weights."""
        weights = self.graphs.weights_read_backward
        return Program(
            self.graphs.run_forward,
            self.source.inputs,
            (*self.source.outputs, *self.graphs.residuals),
            self.source,
            self.source.context.without_grad(),
            seeds=self.source.seeds,
            # For higher orders, which run the function again.
            gives_states=self.source.draws,
            weights=weights,
            gives_versions=bool(weights),
            guard=self.guard,
        )

    def kernel(
        self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]
    ) -> KernelProgram:
        """Tangents of ``outs`` from tangents of ``ins``, or (transposed) cotangents of ``ins`` from
        cotangents of ``outs``.

        Raises:
            NotCapturedError: The backward graph cannot be transposed.
        """
        saved = self.graphs.pullback(ins, outs)
        linear, results = linear_sigs(self.source, transposed, ins, outs)
        tag = f"{','.join(map(str, ins))}:{','.join(map(str, outs))}"
        if transposed:
            linear, results = _renamed(linear), _renamed(results)
            return self._kernel(saved, saved, linear, results, "backward", f"backward/{tag}")
        # The backward graph transposed: tangents from the residuals, nothing computed again.
        inputs = (*self._read(saved), *linear)
        # Not of `saved` itself: its graph has `detach` on what it saved.
        core = transforms.transposed(
            saved.run_differentiably, len(inputs) - len(linear), self._seen_by_torch(results)
        )
        graph = capture(
            self.source, core, inputs, results, plain_attention=self.source.plain_attention
        )
        return self._kernel(saved, graph, linear, results, "forward mode", f"linear/{tag}")

    @property
    def _residuals(self) -> tuple[ArraySig, ...]:
        """Everything that the forward gives behind the outputs."""
        return self.forward.results[len(self.source.outputs) :]

    def _read(self, saved: SavedPullback) -> tuple[ArraySig, ...]:
        """The inputs and residuals that a pullback reads."""
        return (
            *(self.source.inputs[index] for index in saved.inputs),
            *(self.graphs.residuals[index] for index in saved.residuals),
        )

    def _seen_by_torch(self, sigs: Sequence[ArraySig]) -> list[Any]:
        device = self.source.device
        return [(sig.shape, getattr(torch, sig.torch_dtype), device) for sig in sigs]

    def _kernel(
        self,
        saved: SavedPullback,
        core: Core,
        linear: Sequence[ArraySig],
        results: Sequence[ArraySig],
        word: str,
        tag: str,
    ) -> KernelProgram:
        """What runs on residuals: (inputs and residuals that it reads, linear) to results."""
        first_residual = len(self.source.operands)
        first_linear = first_residual + len(self._residuals)
        weights = self.graphs.weights_read_backward
        program = Program(
            core,
            (*self._read(saved), *linear),
            tuple(results),
            self.source,
            self.source.context.without_grad(),
            weights=weights,
            checks_versions=bool(weights),
            # Here too: XLA drops a forward whose results nobody needs.
            guard=self.guard,
        )
        operands = (
            *saved.inputs,
            *(first_residual + index for index in saved.residuals),
            *range(first_linear, first_linear + len(linear)),
            # The versions are the last residual.
            *([first_linear - 1] if weights else []),
        )
        return KernelProgram(program, operands, word, tag)


def _renamed(sigs: Sequence[ArraySig]) -> tuple[ArraySig, ...]:
    return tuple(replace(sig, path=f"co{sig.path}") for sig in sigs)
