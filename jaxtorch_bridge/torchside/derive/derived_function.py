"""A derivative as a torch function of its own, by the first engine that works.

What comes out is differentiated again in the same manner, so there is no end to the order.
"""

from __future__ import annotations

from dataclasses import replace

from ..._compat.torch.func_transforms import load_forward_mode
from ...errors import DifferentiationError
from ..functions.graph_capture import is_once_differentiable
from ..functions.unrecorded_backward import not_differentiable
from .engine_order import RECOMPUTING
from .engines.engine import DerivedFunction, Goal, NoWayError


def derive(goal: Goal) -> DerivedFunction:
    """The derivative that is asked for.

    Raises:
        DifferentiationError: No engine works.
    """
    source = goal.source
    if goal.kind == "push":
        # Outside of an evaluation, in which what torch makes while it loads would be fakes.
        load_forward_mode()
    # A derivative is told by the function that it is of.
    once = source.once_differentiable if source.order else is_once_differentiable(source)
    if once and (source.order or goal.kind == "push"):
        raise not_differentiable(source.label)
    goal = replace(goal, once_differentiable=once)
    failures: list[str] = []
    for engine in RECOMPUTING:
        if engine.objection(goal):
            continue
        try:
            found = engine.build(goal)
        except NoWayError as error:
            failures += error.failures
            continue
        return replace(found, failures=(*failures, *found.failures))
    raise DifferentiationError(
        f"{source.label}: no way to differentiate by {source.names(goal.ins)} works: "
        f"{'; '.join(failures)}."
    )
