"""What every engine of derivatives can be asked, and what it makes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from ...._compat.torch.modules import has_backward_hooks
from ....planner.array_signature import ArraySig
from ...closure.closure_guard import ClosureGuard
from ...functions.graph_capture import NotCapturedError, hooks_its_tensors
from ...functions.tensor_function import TensorFunction, tangent_sig
from ...op.program import Program

Kind = Literal["push", "pull"]


@dataclass(frozen=True)
class Goal:
    """A derivative that is asked for.

    Attributes:
        fn: What to differentiate.
        kind: Forwards (``push``) or backwards (``pull``).
        ins: Inputs with a tangent or gradient.
        outs: Outputs with a tangent or cotangent; empty where an engine is to find out.
        seeds: What to take so as to draw what was drawn; see `TensorFunction`.
        again: The function itself has run already: leave nothing behind.
        primal: Forwards: give the results as well.
        once_differentiable: A backward inside is marked so.
        refused: Outputs that must not be among those that an engine finds.
        unsure: A backward of the function's own has a part, and nothing has shown yet whether torch
            knows its derivative.
    """

    fn: TensorFunction
    kind: Kind
    ins: tuple[int, ...]
    outs: tuple[int, ...] = ()
    seeds: tuple[ArraySig, ...] = ()
    again: bool = True
    primal: bool = False
    once_differentiable: bool = False
    refused: tuple[int, ...] = ()
    unsure: bool = False

    @functools.cached_property
    def told_by_runs(self) -> bool:
        """Whether only runs tell if what goes back is a linear map that torch has recorded.

        Forwards, hooks may change what goes back, of which torch's forward mode knows nothing.
        """
        if self.unsure:
            return True
        if self.kind != "push" or not self.fn.capturable:
            return False
        # Also hooks that have come since the function was planned.
        if self.fn.inference.backward_hooks or has_backward_hooks(self.fn.closure.all_modules):
            return True
        return hooks_its_tensors(self.fn, self.ins)


class NoWayError(NotCapturedError):
    """None of an engine's ways works.

    Attributes:
        failures: Words on each.
    """

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__("; ".join(failures))
        self.failures = tuple(failures)


Found = TypeVar("Found", covariant=True)


class Engine(Protocol[Found]):
    """One way to find derivatives.

    What it finds says for `explain` how it was found (`Kept.words`, or `TensorFunction.way`).
    """

    @property
    def name(self) -> str:
        """For messages."""

    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""

    def build(self, goal: Goal) -> Found:
        """The derivative.

        Raises:
            NotCapturedError: It does not work; says why.
            NoWayError: It has several ways, and none works.
            DifferentiationError: No engine can.
        """


@dataclass(frozen=True)
class LinearCallProgram:
    """What computes the linear part of a derivative from what was kept.

    Attributes:
        program: What to run.
        operands: For each of its operands, which operand of the linear call it is: inputs,
            residuals and linear operands counted through.
        word: What it is, for messages.
        tag: The same in a key.
    """

    program: Program
    operands: tuple[int, ...]
    word: str
    tag: str


class Kept(Protocol):
    """A forward that keeps residuals, and the linear part that reads them."""

    @property
    def engine(self) -> str:
        """In one word, for plans."""

    @property
    def diff_outputs(self) -> tuple[int, ...]:
        """Outputs that carry a tangent."""

    @property
    def grad_inputs(self) -> tuple[int, ...]:
        """Inputs that any of these outputs depends on."""

    @property
    def guard(self) -> ClosureGuard:
        """Tells when graphs are out of date."""

    @property
    def forward(self) -> Program:
        """Outputs, then residuals."""

    @property
    def size_bytes(self) -> int | None:
        """Bytes that the residuals take; None if that is not known."""

    @property
    def words(self) -> str:
        """What is kept, for `explain`."""

    @property
    def under_checkpoint(self) -> str:
        """What `jax.checkpoint` makes of it, for `explain`; empty if it makes no difference."""

    def linear_call(
        self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]
    ) -> LinearCallProgram:
        """Tangents of ``outs`` from tangents of ``ins``, or (transposed) cotangents of ``ins`` from
        cotangents of ``outs``.

        Raises:
            NotCapturedError: The function must run again.
        """


@dataclass(frozen=True)
class DerivedFunction:
    """A derivative as a function of its own.

    Attributes:
        fn: To be differentiated again.
        program: To be run.
        failures: Words on what did not work.
    """

    fn: TensorFunction
    program: Program
    failures: tuple[str, ...] = ()


def linear_sigs(
    fn: TensorFunction, transposed: bool, ins: Sequence[int], outs: Sequence[int]
) -> tuple[tuple[ArraySig, ...], tuple[ArraySig, ...]]:
    """(operands, results) of a function's linear part, as signatures."""
    tangents = tuple(tangent_sig(fn.inputs[index], "tangent of") for index in ins)
    moved = tuple(tangent_sig(fn.outputs[index], "tangent of") for index in outs)
    return (moved, tangents) if transposed else (tangents, moved)
