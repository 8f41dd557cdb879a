"""Forward mode: a function's results and their tangents from one run."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..closure.closure_guard import ClosureGuard
from ..functions.graph_capture import dependent_outputs
from ..functions.tensor_function import TensorFunction
from ..op.make_op import op_of_program
from ..op.torch_op import TorchOp, WithTangents
from .derived_function import derive
from .engines.engine import Goal
from .refusals import differentiable_function
from .refused_outputs import Refused, refuse_all, refused_outputs


@dataclass(eq=False, repr=False)
class Pushforward:
    """Results and tangents from one run.

    Attributes:
        op: From (inputs, tangents of ``wrt``, states) to (results, tangents of
            ``diff_outputs``). None if nothing depends.
        operands: Where the op's operands are among (inputs, tangents of ``wrt``).
        diff_outputs: Outputs that carry a tangent.
        refused: Outputs whose tangent must not be used, with the reason.
    """

    op: TorchOp | None
    operands: tuple[int, ...]
    diff_outputs: tuple[int, ...]
    wrt: tuple[int, ...]
    fn: TensorFunction
    failures: tuple[str, ...]
    guard: ClosureGuard
    refused: Refused = field(default_factory=dict)

    @property
    def fresh(self) -> bool:
        """Whether the function's surroundings are still those that were traced."""
        return self.guard.holds

    @property
    def words(self) -> tuple[str, ...]:
        """Lines for `explain`."""
        names = self.fn.names(self.wrt)
        if self.op is None or self.op.fn is None:
            return (f"forwards by {names}: zero: no output depends on them",)
        return (
            f"forwards by {names}: {self.op.fn.way}",
            *(f"  not {words}" for words in self.failures),
        )


def pushforward(op: TorchOp, wrt: tuple[int, ...]) -> Pushforward:
    """Results and tangents in one run.

    Raises:
        DifferentiationError: As in `linearize`.
    """
    fn = differentiable_function(op, wrt)
    guard = ClosureGuard(fn.closure, held=fn.capturable)
    refused = refused_outputs(fn, wrt)
    refuse_all(fn, wrt, refused)
    outs = tuple(index for index in dependent_outputs(fn, wrt) if index not in refused)
    # JAX then takes the function's own op, and zeros for its tangents.
    if not outs:
        return Pushforward(None, (), (), wrt, fn, (), guard, refused)
    goal = Goal(fn, "push", wrt, outs, fn.seeds, again=False, primal=True)
    derived = derive(goal)
    role = WithTangents(derived.fn, op, wrt)
    made = op_of_program(
        derived.program,
        derived.fn.label,
        derived.fn.key,
        role,
        op.family,
        op.then("pushforward", wrt),
    )
    count = len(fn.inputs)
    tangents = range(len(op.inputs), len(op.inputs) + len(wrt))
    # The op has its inputs, then tangents, then seeds; the JAX side has seeds before tangents.
    operands = (*range(count), *tangents, *range(count, len(op.inputs)))
    return Pushforward(made, operands, outs, wrt, fn, derived.failures, guard, refused)
