"""Orthogonal polynomials, whose degree is an array: by their recurrences, as torch computes them.

What is no number has degree -1, and of a negative degree is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from ...._compat.jax.abstract_values import with_equal_variance
from ..promotion import to_dtype
from ..registry import Out, lowers

Step = Callable[[Any, Any, Any, Any], Any]
"""The value of degree k of x, k, and the values of the two degrees before, the nearer first."""


def _enter(name: str, function: Callable[[Any, Any], Any]) -> None:
    def lower(out: Out, x: Any, n: Any) -> Any:
        x, n = with_equal_variance(
            jnp.broadcast_arrays(to_dtype(x, out.dtype), to_dtype(n, out.dtype))
        )
        degree = jnp.where(jnp.isfinite(n), n, -1).astype(jnp.int64)
        found = function(x, degree)
        return jnp.where(degree < 0, 0, found).astype(out.dtype)

    lowers(*(f"special_{name}.{how}" for how in ("default", "x_scalar", "n_scalar")))(lower)


def _risen(x: Any, degree: Any, first: Any, step: Step) -> Any:
    """From the values of degree 0, which is 1, and of degree 1 upwards."""

    def is_left(state: tuple[Any, ...]) -> Any:
        at, _, last = state
        # What is NaN stays so.
        return ((at <= degree) & ~jnp.isnan(last)).any()

    def go_on(state: tuple[Any, ...]) -> tuple[Any, ...]:
        at, before, last = state
        reached = at <= degree
        found = step(x, at.astype(x.dtype), last, before)
        return at + 1, jnp.where(reached, last, before), jnp.where(reached, found, last)

    _, _, found = lax.while_loop(is_left, go_on, (jnp.int64(2), jnp.ones_like(x), first))
    return jnp.where(degree == 0, 1, found)


def _chebyshev(kind: str, x: Any, degree: Any) -> Any:
    n = degree.astype(x.dtype)
    sign = jnp.where(degree % 2 == 0, 1, -1).astype(x.dtype)
    angle = jnp.arccos(x)
    first, above, below, within = {
        "t": (x, 1, 1, jnp.cos(n * angle)),
        "u": (x + x, n + 1, n + 1, jnp.sin((n + 1) * angle) / jnp.sin(angle)),
        "v": (x + x - 1, 1, n + n + 1, jnp.cos((n + 0.5) * angle) / jnp.cos(angle / 2)),
        "w": (x + x + 1, n + n + 1, 1, jnp.sin((n + 0.5) * angle) / jnp.sin(angle / 2)),
    }[kind]
    is_short = (jnp.abs(x) < 1) & (degree > (6 if kind == "t" else 8))
    is_edge = jnp.abs(x) == 1
    steps = jnp.where(is_short | is_edge, 0, degree)
    found = _risen(x, steps, first, lambda x, k, last, before: (x + x) * last - before)
    found = jnp.where(is_short, within, found)
    return jnp.where(is_edge, jnp.where(x > 0, above, below * sign), found)


def _enter_chebyshev(kind: str) -> None:
    _enter(f"chebyshev_polynomial_{kind}", lambda x, n: _chebyshev(kind, x, n))
    _enter(f"shifted_chebyshev_polynomial_{kind}", lambda x, n: _chebyshev(kind, x + x - 1, n))


for _kind in "tuvw":
    _enter_chebyshev(_kind)


def _up_to_limit(x: Any, degree: Any, found: Any) -> Any:
    """NaN beyond the degrees that torch goes to."""
    limit = 128 if x.dtype == jnp.float32 else 512
    return jnp.where(degree > limit, jnp.nan, found)


def _hermite_h(x: Any, degree: Any) -> Any:
    steps = jnp.minimum(degree, 512)
    found = _risen(x, steps, x + x, lambda x, k, a, b: (x + x) * a - (k + k - 2) * b)
    return _up_to_limit(x, degree, found)


def _hermite_he(x: Any, degree: Any) -> Any:
    steps = jnp.minimum(degree, 512)
    return _up_to_limit(x, degree, _risen(x, steps, x, lambda x, k, a, b: x * a - (k - 1) * b))


def _laguerre(x: Any, degree: Any) -> Any:
    steps = jnp.where(x == 0, 0, degree)
    return _risen(x, steps, 1 - x, lambda x, k, a, b: ((k + k - 2 + (1 - x)) * a - (k - 1) * b) / k)


def _legendre(x: Any, degree: Any) -> Any:
    edge = jnp.abs(x) == 1
    steps = jnp.where(edge, 0, degree)
    found = _risen(x, steps, x, lambda x, k, a, b: ((k + k - 1) * x * a - (k - 1) * b) / k)
    return jnp.where(edge & (x < 0) & (degree % 2 != 0), -1, found)


_enter("hermite_polynomial_h", _hermite_h)
_enter("hermite_polynomial_he", _hermite_he)
_enter("laguerre_polynomial_l", _laguerre)
_enter("legendre_polynomial_p", _legendre)
