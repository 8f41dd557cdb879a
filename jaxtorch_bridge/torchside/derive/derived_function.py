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
from .hidden_backwards import known_to_autograd


def derive(goal: Goal) -> DerivedFunction:
    """The derivative that is asked for.

    Raises:
        DifferentiationError: No engine works.
    """
    fn = goal.fn
    if goal.kind == "push":
        # Outside of an evaluation, in which what torch makes while it loads would be fakes.
        load_forward_mode()
    # A derivative is told by the function that it is of.
    once = fn.once_differentiable if fn.order else is_once_differentiable(fn)
    if once and (fn.order or goal.kind == "push"):
        raise not_differentiable(fn.label)
    goal = replace(goal, once_differentiable=once, unsure=not known_to_autograd(goal))
    failures: list[str] = []
    for engine in RECOMPUTING:
        if engine.objection(goal):
            continue
        try:
            found = engine.build(goal)
        except NoWayError as error:
            failures += error.failures
            continue
        failures += found.failures
        program = replace(found.program, no_graph=tuple(failures))
        return replace(found, program=program, failures=tuple(failures))
    raise DifferentiationError(
        f"{fn.label}: no way to differentiate by {fn.names(goal.ins)} works: {'; '.join(failures)}."
    )
