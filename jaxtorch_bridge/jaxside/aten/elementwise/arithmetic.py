"""Operations of two elements: arithmetic, comparisons, logic, shifts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..promotion import common_dtype, is_kind, to_dtype
from ..registry import Out, lowers


def _binary(names: str, function: Callable[[Any, Any], Any]) -> None:
    """An operation that computes in the dtype of its result."""

    def lower(out: Out, a: Any, b: Any) -> Any:
        return function(to_dtype(a, out.dtype), to_dtype(b, out.dtype)).astype(out.dtype)

    lowers(*names.split())(lower)


_binary("mul.Tensor mul.Scalar", lambda a, b: a & b if a.dtype == jnp.bool_ else a * b)
_binary("atan2.default", jnp.arctan2)
_binary("gcd.default", jnp.gcd)
_binary("lcm.default", jnp.lcm)
_binary("bitwise_and.Tensor bitwise_and.Scalar", lambda a, b: a & b)
_binary("bitwise_or.Tensor bitwise_or.Scalar", lambda a, b: a | b)
_binary("bitwise_xor.Tensor bitwise_xor.Scalar", lambda a, b: a ^ b)
_binary("maximum.default", jnp.maximum)
_binary("minimum.default", jnp.minimum)
_binary("clamp_min.default clamp_min.Tensor", jnp.maximum)
_binary("clamp_max.default clamp_max.Tensor", jnp.minimum)
_binary("fmax.default", jnp.fmax)
_binary("fmin.default", jnp.fmin)
_binary("copysign.Tensor copysign.Scalar", jnp.copysign)
_binary("hypot.default", jnp.hypot)
_binary("nextafter.default", jnp.nextafter)


@lowers("add.Tensor", "add.Scalar")
def add(out: Out, a: Any, b: Any, alpha: Any = 1) -> Any:
    """``a + alpha * b``."""
    first, second = to_dtype(a, out.dtype), to_dtype(b, out.dtype)
    if out.dtype == jnp.bool_:
        return first | (second if alpha else jnp.zeros_like(second))
    return first + (second if _is_one(alpha) else to_dtype(alpha, out.dtype) * second)


@lowers("sub.Tensor", "sub.Scalar")
def sub(out: Out, a: Any, b: Any, alpha: Any = 1) -> Any:
    """``a - alpha * b``."""
    first, second = to_dtype(a, out.dtype), to_dtype(b, out.dtype)
    return first - (second if _is_one(alpha) else to_dtype(alpha, out.dtype) * second)


def _is_one(value: Any) -> bool:
    return isinstance(value, int | float) and value == 1


@lowers("div.Tensor", "div.Scalar")
def div(out: Out, a: Any, b: Any) -> Any:
    """The true quotient."""
    return to_dtype(a, out.dtype) / to_dtype(b, out.dtype)


@lowers("div.Tensor_mode", "div.Scalar_mode")
def div_mode(out: Out, a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    """The quotient, rounded down or towards zero."""
    first, second = to_dtype(a, out.dtype), to_dtype(b, out.dtype)
    if rounding_mode is None:
        return first / second
    if is_kind(out.dtype, jnp.integer):
        return (
            jnp.floor_divide(first, second)
            if rounding_mode == "floor"
            else lax.div(*jnp.broadcast_arrays(first, second))
        )
    if rounding_mode == "trunc":
        return jnp.trunc(first / second)
    return _floor_divide(first, second)


def _floor_divide(a: Any, b: Any) -> Any:
    """As ``c10::div_floor_floating``: exact where the quotient would round up."""
    rest = jnp.fmod(a, b)
    quotient = (a - rest) / b
    quotient = jnp.where((rest != 0) & ((b < 0) != (rest < 0)), quotient - 1, quotient)
    floor = jnp.floor(quotient)
    floor = jnp.where(quotient - floor > 0.5, floor + 1, floor)
    found = jnp.where(quotient == 0, jnp.copysign(jnp.zeros_like(quotient), a / b), floor)
    return jnp.where(b == 0, a / b, found)


@lowers("floor_divide.default")
def floor_divide(out: Out, a: Any, b: Any) -> Any:
    """The quotient, rounded down."""
    return div_mode(out, a, b, rounding_mode="floor")


@lowers("fmod.Tensor", "fmod.Scalar")
def fmod(out: Out, a: Any, b: Any) -> Any:
    """The rest with the sign of ``a``."""
    return jnp.fmod(to_dtype(a, out.dtype), to_dtype(b, out.dtype))


@lowers("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def remainder(out: Out, a: Any, b: Any) -> Any:
    """The rest with the sign of ``b``."""
    first, second = to_dtype(a, out.dtype), to_dtype(b, out.dtype)
    if is_kind(out.dtype, jnp.integer):
        return jnp.remainder(first, second)
    rest = jnp.fmod(first, second)
    return jnp.where((rest != 0) & ((rest < 0) != (second < 0)), rest + second, rest)


@lowers("pow.Tensor_Tensor", "pow.Tensor_Scalar", "pow.Scalar")
def power(out: Out, a: Any, b: Any) -> Any:
    """Of integers with negative exponents 0, 1 or -1."""
    if isinstance(b, int | float) and not isinstance(b, bool) and is_kind(out.dtype, jnp.floating):
        x = to_dtype(a, out.dtype)
        if b == 2:
            return x * x
        if b == 0.5:
            return jnp.sqrt(x)
    first, second = to_dtype(a, out.dtype), to_dtype(b, out.dtype)
    if not is_kind(out.dtype, jnp.integer):
        return jnp.power(first, second)
    found = jnp.power(
        first, jnp.maximum(second, 0) if is_kind(out.dtype, jnp.signedinteger) else second
    )
    if not is_kind(out.dtype, jnp.signedinteger):
        return found
    odd = jnp.where(second % 2 == 0, 1, -1).astype(out.dtype)
    negative = jnp.where(first == 1, 1, jnp.where(first == -1, odd, 0)).astype(out.dtype)
    return jnp.where(second < 0, negative, found)


@lowers("ldexp.Tensor")
def ldexp(out: Out, a: Any, b: Any) -> Any:
    """By a power of two, which is computed in its own dtype, as torch does."""
    dtype = b.dtype if is_kind(b.dtype, jnp.inexact) else np.dtype(np.float32)
    factor = jnp.power(jnp.asarray(2, dtype), b.astype(dtype))
    return a.astype(out.dtype) * factor.astype(out.dtype)


def _comparison(name: str, function: Callable[[Any, Any], Any]) -> None:
    def lower(out: Out, a: Any, b: Any) -> Any:
        dtype = common_dtype(a, b)
        return function(to_dtype(a, dtype), to_dtype(b, dtype))

    lowers(f"{name}.Tensor", f"{name}.Scalar")(lower)


_comparison("eq", lambda a, b: a == b)
_comparison("ne", lambda a, b: a != b)
_comparison("lt", lambda a, b: a < b)
_comparison("le", lambda a, b: a <= b)
_comparison("gt", lambda a, b: a > b)
_comparison("ge", lambda a, b: a >= b)


def _logical(name: str, function: Callable[[Any, Any], Any]) -> None:
    def lower(out: Out, a: Any, b: Any) -> Any:
        return function(a != 0, b != 0)

    lowers(f"{name}.default")(lower)


_logical("logical_and", lambda a, b: a & b)
_logical("logical_or", lambda a, b: a | b)
_logical("logical_xor", lambda a, b: a ^ b)


def _shift(name: str, function: Callable[[Any, Any], Any], far: Callable[[Any], Any]) -> None:
    def lower(out: Out, a: Any, b: Any) -> Any:
        first, second = jnp.broadcast_arrays(to_dtype(a, out.dtype), to_dtype(b, out.dtype))
        bits = out.dtype.itemsize * 8
        outside = (second < 0) | (second >= bits)
        return jnp.where(outside, far(first), function(first, jnp.where(outside, 0, second)))

    lowers(f"{name}.Tensor", f"{name}.Tensor_Scalar")(lower)


_shift("bitwise_left_shift", lax.shift_left, jnp.zeros_like)
_shift(
    "bitwise_right_shift",
    lambda a, b: (
        lax.shift_right_arithmetic(a, b)
        if is_kind(a.dtype, jnp.signedinteger)
        else lax.shift_right_logical(a, b)
    ),
    lambda a: jnp.where(a < 0, -1, 0).astype(a.dtype),
)
