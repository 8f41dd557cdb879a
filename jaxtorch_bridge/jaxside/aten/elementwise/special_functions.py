"""Functions of one element or two that have names in mathematics; narrow floats in float32."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.scipy import special

from ...._compat.jax.abstract_values import with_equal_variance
from ..promotion import to_dtype
from ..registry import Out, computed_in, lowers


def _wide(out: Out, *values: Any) -> tuple[Any, ...]:
    return tuple(to_dtype(one, computed_in(out.dtype)) for one in values)


def _of_one(name: str, function: Callable[[Any], Any]) -> None:
    def lower(out: Out, x: Any) -> Any:
        return function(*_wide(out, x)).astype(out.dtype)

    lowers(f"{name}.default")(lower)


def _i0(x: Any) -> Any:
    size = jnp.abs(x)
    return jnp.exp(size) * lax.bessel_i0e(x)


def _i1(x: Any) -> Any:
    return jnp.exp(jnp.abs(x)) * lax.bessel_i1e(x)


def _erfcx(x: Any) -> Any:
    """``exp(x**2) * erfc(x)``; of great numbers, where one is nothing, by a continued fraction."""
    # Cut, so that the square of the first part is exact.
    near = jnp.floor(x * 16) / 16
    square = jnp.exp(near * near) * jnp.exp((x - near) * (x + near))
    rest = lax.fori_loop(
        0, 50, lambda at, rest: ((50 - at) / 2).astype(x.dtype) / (x + rest), jnp.zeros_like(x)
    )
    square = jnp.where(x == -jnp.inf, jnp.inf, square)
    return jnp.where(x > 3, 1 / (math.sqrt(math.pi) * (x + rest)), square * lax.erfc(x))


def _spherical_j0(x: Any) -> Any:
    square = x * x
    near = jnp.ones_like(x)
    # The series of sin(x) / x, from its smallest term on.
    for place in (13, 11, 9, 7, 5, 3):
        near = 1 - square / (place * (place - 1)) * near
    far = jnp.where(jnp.isinf(x), 0, jnp.sin(x) / x)
    return jnp.where(jnp.abs(x) < 0.5, near, far)


_of_one("i0", _i0)
_of_one("special_modified_bessel_i0", _i0)
_of_one("special_i0e", lax.bessel_i0e)
_of_one("special_i1", _i1)
_of_one("special_modified_bessel_i1", _i1)
_of_one("special_i1e", lax.bessel_i1e)
_of_one("special_erfcx", _erfcx)
_of_one("special_log_ndtr", special.log_ndtr)
_of_one("special_ndtri", special.ndtri)
_of_one("special_spherical_bessel_j0", _spherical_j0)


def _digamma(x: Any) -> Any:
    """Infinite at 0, whose sign counts."""
    return jnp.where(x == 0, jnp.copysign(jnp.inf, -x), special.digamma(x))


_of_one("digamma", _digamma)


@lowers("polygamma.default")
def polygamma(out: Out, n: int, x: Any) -> Any:
    """The derivative of digamma of that order."""
    (wide,) = _wide(out, x)
    if n == 0:
        return _digamma(wide).astype(out.dtype)
    if n == 1:
        return _trigamma(wide).astype(out.dtype)
    order = jnp.asarray(n + 1, wide.dtype)
    sign = 1 if n % 2 else -1
    found = sign * jnp.exp(lax.lgamma(order)) * _zeta(order, wide)
    return found.astype(out.dtype)


def _trigamma(x: Any) -> Any:
    """Torch's approximation, which in float64 has ten digits: reflected, raised, then a series."""
    is_below = x < 0.5
    at = jnp.where(is_below, 1 - x, x)
    found = jnp.zeros_like(x)
    for _ in range(6):
        found, at = found + 1 / (at * at), at + 1
    square = 1 / (at * at)
    series = 1 + 1 / (2 * at) + square * (1 / 6 - square * (1 / 30 - square * (1 / 42)))
    found = found + series / at
    sine = jnp.sin(jnp.pi * x)
    return jnp.where(is_below, jnp.pi**2 / (sine * sine) - found, found)


@lowers("special_zeta.default", "special_zeta.self_scalar", "special_zeta.other_scalar")
def zeta(out: Out, x: Any, q: Any) -> Any:
    """Hurwitz's."""
    return _zeta(*_wide(out, x, q)).astype(out.dtype)


def _zeta(x: Any, q: Any) -> Any:
    x, q = with_equal_variance(jnp.broadcast_arrays(x, q))
    is_pole = (q <= 0) & (q == jnp.floor(q))
    has_terms = (q < 0) & ~is_pole & (x > 1) & (x == jnp.floor(x))

    # XLA's is right for positive numbers alone, and the terms of negative ones can be great.
    def is_left(state: tuple[Any, Any]) -> Any:
        return (has_terms & (state[1] < 0)).any()

    def add(state: tuple[Any, Any]) -> tuple[Any, Any]:
        total, at = state
        here = has_terms & (at < 0)
        total = jnp.where(here, total + jnp.power(at, -x), total)
        return total, jnp.where(here, at + 1, at)

    total, at = lax.while_loop(is_left, add, (jnp.zeros_like(x), q))
    rest = special.zeta(x, at)
    # It also has NaN where only the first term is left.
    rest = jnp.where(jnp.isnan(rest) & (at > 0) & (x > 1), jnp.power(at, -x), rest)
    found = jnp.where(is_pole, jnp.inf, total + rest)
    found = jnp.where((q < 0) & ~is_pole & (x != jnp.floor(x)), jnp.nan, found)
    lacks = (x < 1) | (q == jnp.inf) | ((x == jnp.inf) & (q > 1))
    return jnp.where(x == 1, jnp.inf, jnp.where(lacks, jnp.nan, found))


def _gamma_part(name: str, function: Any, at_nought: float) -> None:
    def lower(out: Out, a: Any, x: Any) -> Any:
        a, x = jnp.broadcast_arrays(*_wide(out, a, x))
        # XLA's series has too few terms in float32 where both are great.
        wide = (one.astype(jnp.float64) for one in (a, x))
        found = jnp.where(jnp.isinf(x), 1 - at_nought, function(*wide))
        found = jnp.where(jnp.isinf(a), jnp.where(jnp.isinf(x), jnp.nan, at_nought), found)
        found = jnp.where(x == 0, at_nought, found)
        # The whole mass lies at 0.
        found = jnp.where(a == 0, jnp.where(x > 0, 1 - at_nought, jnp.nan), found)
        return jnp.where((x < 0) | (a < 0), jnp.nan, found).astype(out.dtype)

    lowers(f"{name}.default")(lower)


_gamma_part("igamma", special.gammainc, 0.0)
_gamma_part("igammac", special.gammaincc, 1.0)


@lowers("frexp.Tensor")
def frexp(outs: Any, x: Any) -> Any:
    """A number from a half to one, and a power of two."""
    (wide,) = _wide(outs[0], x)
    mantissa, exponent = jnp.frexp(wide)
    return mantissa.astype(outs[0].dtype), exponent.astype(outs[1].dtype)
