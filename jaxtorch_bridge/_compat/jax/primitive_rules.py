"""Primitives, and where JAX looks for the rules of one.

Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Public in documentation on custom primitives, but without a promise of stability.
# `Primitive` is the same class as jax.extend.core.Primitive, whose package loads Pallas as well.
from jax._src.core import Primitive as Primitive
from jax._src.interpreters import partial_eval as partial_eval
from jax._src.interpreters.ad import LinearizeTrace as _LinearizeTrace
from jax._src.interpreters.ad import primitive_linearizations as _primitive_linearizations
from jax.interpreters import ad as ad
from jax.interpreters import batching as batching
from jax.interpreters import mlir as mlir

# What stands for the batch axis of an operand that has none.
not_mapped = None
# Since JAX 0.12 a linearization also returns structured residuals, of which there are none here.
_STRUCTURED = "structured_res" in _LinearizeTrace.process_primitive.__code__.co_varnames


def register_linearization(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """How ``jax.linearize`` and reverse mode take a primitive apart.

    Args:
        primitive: Of multiple results.
        rule: ``(is_vjp, nonzeros, *primals, **params)`` to (results, which of them move,
            residuals, ``linear(residuals, *tangents)``).
    """

    def adapted(*args: Any, **params: Any) -> Any:
        outputs, moves, residuals, linear = rule(*args, **params)
        if _STRUCTURED:
            return outputs, moves, residuals, None, lambda res, _, *tangents: linear(res, *tangents)
        return outputs, moves, residuals, linear

    _primitive_linearizations[primitive] = adapted


def register_dce_rule(primitive: Primitive, rule: Callable[..., Any]) -> None:
    """What of an equation may be left out.

    Args:
        primitive: Whose equations.
        rule: ``(used results, equation)`` to (used operands, equation or None).
    """
    # JAX 0.12 puts the live operands in between.
    partial_eval.dce_rules[primitive] = lambda used, *rest: rule(used, rest[-1])
