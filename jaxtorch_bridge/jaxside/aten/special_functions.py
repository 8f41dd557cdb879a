"""Functions of one element or two that have names in mathematics; narrow floats in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.scipy import special

from .promotion import to_dtype
from .registry import CannotLowerError, Out, computed_in, lowers


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
    found = getattr(special, "erfcx", None)
    if found is None:
        raise CannotLowerError("this version of JAX has no erfcx")
    return found(x)


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
    x, q = jnp.broadcast_arrays(x, q)
    found = special.zeta(x, q)
    # XLA has NaN at some of the poles, and where only the first term is left.
    found = jnp.where(jnp.isnan(found) & (q > 0) & (x > 1), jnp.power(q, -x), found)
    found = jnp.where((q <= 0) & (q == jnp.floor(q)), jnp.inf, found)
    return jnp.where(x < 1, jnp.nan, found)


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
