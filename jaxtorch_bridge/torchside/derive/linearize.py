"""Reverse mode: the derivative of an op by some inputs, by the first engine that works."""

from __future__ import annotations

from ...errors import DifferentiationError
from ..closure.closure_state import ClosureGuard
from ..functions.graph_capture import NotCapturedError, dependent_outputs
from ..op.torch_op import TorchOp
from .derived_function import derive
from .engine_order import KEEPING
from .engines.engine import Goal, LimitError
from .linear_part import Linearized
from .refusals import differentiable_source


def linearize(op: TorchOp, wrt: tuple[int, ...]) -> Linearized:
    """The derivative by the inputs ``wrt``.

    Raises:
        DifferentiationError: The function hides a derivative from torch, the contract forbids
            it, or no engine works.
    """
    source = differentiable_source(op, wrt)
    guard = ClosureGuard(source.closure)
    goal = Goal(source, "pull", wrt, seeds=source.seeds_of_repeats)
    failures: list[str] = []
    saved_bytes = None
    for engine in KEEPING:
        reason = engine.objection(goal)
        if not reason:
            try:
                kept = engine.build(goal)
            except NotCapturedError as error:
                reason = str(error)
                if isinstance(error, LimitError):
                    # For `explain`: what a higher limit would keep.
                    saved_bytes = error.size_bytes
            else:
                # No output depends on these inputs: the derivative is zero.
                if kept is None:
                    return Linearized(op, source, wrt, guard)
                return Linearized(
                    op,
                    source,
                    wrt,
                    guard,
                    kept=kept,
                    failures=failures,
                    saved_bytes=kept.size_bytes,
                )
        if source.terms.residuals == "save":
            raise DifferentiationError(
                f"{source.label}: the contract says `residuals: save`, but residuals cannot be "
                f"saved here: {reason}. Say `auto` or `recompute`. [{source.terms.residuals_at}]"
            )
        failures.append(f"{engine.name}: {reason}")
    # Only now: an engine that keeps residuals finds out by itself.
    outs = dependent_outputs(source, wrt)
    if not outs:
        return Linearized(op, source, wrt, guard)
    again = derive(Goal(source, "pull", wrt, outs, source.seeds_of_repeats))
    return Linearized(
        op,
        source,
        wrt,
        guard,
        again=again,
        diff_outputs=outs,
        failures=(*failures, *again.failures),
        saved_bytes=saved_bytes,
    )
