"""Partial evaluation, and the equations that it looks at.

Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax._src import core as _core
from jax._src.interpreters import partial_eval

from .abstract_values import output_avals
from .primitive_rules import Primitive


def known_value(tracer: Any) -> Any | None:
    """What a tracer of JAX's partial evaluation stands for, or None if that is unknown."""
    return tracer.pval.get_known()


def stage_by_default(
    trace: Any, primitive: Primitive, tracers: Sequence[Any], params: dict[str, Any]
) -> list[Any]:
    """What partial evaluation does with a primitive that has no rule of its own."""
    return list(trace.default_process_primitive(primitive, tracers, params))


def saveable_by_policy(policy: Any, equation: Any) -> bool:
    """Whether a ``jax.checkpoint`` policy lets the results of an equation be saved."""
    avals = [variable.aval for variable in equation.invars]
    found = policy(equation.primitive, *avals, **equation.params)
    # A policy answers with a boolean, or with one of JAX's marks: recompute, save, offload.
    return found is True or (
        found is not False and not isinstance(found, partial_eval.RecomputeType)
    )


def is_variable(atom: Any) -> bool:
    """Whether an operand of an equation is a variable, not a literal."""
    return isinstance(atom, _core.Var)


def new_variable(shape: tuple[int, ...], dtype: str, like: Any) -> Any:
    """A variable for one more result of the equation ``like``."""
    avals = [variable.aval for variable in like.invars]
    return _core.Var(output_avals([(shape, dtype)], avals)[0])


def equation_with(
    equation: Any,
    primitive: Primitive,
    operands: Sequence[Any],
    results: Sequence[Any],
    params: dict[str, Any],
) -> Any:
    """An equation in the place of another."""
    return equation.replace(
        primitive=primitive, invars=list(operands), outvars=list(results), params=params
    )
