"""Reverse mode: the derivative of an op by some inputs, by the first engine that works."""

from __future__ import annotations

from ..closure.closure_guard import ClosureGuard
from ..functions.graph_capture import dependent_outputs
from ..op.torch_op import TorchOp
from .derived_function import derive
from .engine_order import KEEPING
from .engines.engine import Goal
from .linear_part import Linearized
from .refusals import differentiable_function
from .refused_outputs import refused_outputs


def linearize(op: TorchOp, wrt: tuple[int, ...]) -> Linearized:
    """The derivative by the inputs ``wrt``.

    Raises:
        DifferentiationError: The contract forbids it, or no engine works.
    """
    fn = differentiable_function(op, wrt)
    guard = ClosureGuard(fn.closure, held=fn.capturable)
    refused = refused_outputs(fn, wrt)
    goal = Goal(fn, "pull", wrt, seeds=fn.seeds_of_repeats, refused=tuple(refused))
    failures: list[str] = []
    for engine in KEEPING:
        reason = engine.objection(goal)
        if not reason:
            kept = engine.build(goal)
            # No output depends on these inputs: the derivative is zero.
            if kept is None:
                return Linearized(op, fn, wrt, guard, refused=refused)
            return Linearized(op, fn, wrt, guard, kept=kept, failures=failures, refused=refused)
        failures.append(f"{engine.name}: {reason}")
    # Only now: an engine that keeps residuals finds out by itself.
    outs = tuple(index for index in dependent_outputs(fn, wrt) if index not in refused)
    if not outs:
        return Linearized(op, fn, wrt, guard, refused=refused)
    again = derive(Goal(fn, "pull", wrt, outs, fn.seeds_of_repeats))
    return Linearized(
        op,
        fn,
        wrt,
        guard,
        again=again,
        diff_outputs=outs,
        failures=(*failures, *again.failures),
        refused=refused,
    )
