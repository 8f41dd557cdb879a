"""Functions of one element, activations, and choices element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..batches import lowers_batches, of_result
from ..promotion import converted, is_kind, to_dtype
from ..registry import CannotLowerError, Out, computed_in, lowers


def _unary(name: str, function: Callable[[Any], Any], *, wide: bool = False) -> None:
    """An operation whose result has the dtype that it computes in.

    Args:
        name: Without the overload.
        function: The same in JAX.
        wide: Narrow floats are computed in float32, as torch does.
    """

    def lower(out: Out, x: Any) -> Any:
        dtype = out.dtype
        return function(x.astype(computed_in(dtype) if wide else dtype)).astype(dtype)

    lowers(f"{name}.default")(lower)


for _name, _function in {
    "acos": jnp.arccos,
    "acosh": jnp.arccosh,
    "asin": jnp.arcsin,
    "asinh": jnp.arcsinh,
    "atan": jnp.arctan,
    "atanh": jnp.arctanh,
    "cos": jnp.cos,
    "cosh": jnp.cosh,
    "erf": lax.erf,
    "erfc": lax.erfc,
    "erfinv": lax.erf_inv,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    # XLA's own is not quite 0 there.
    "lgamma": lambda x: jnp.where((x == 1) | (x == 2), jnp.zeros_like(x), lax.lgamma(x)),
    "log": jnp.log,
    "log10": jnp.log10,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "rsqrt": lax.rsqrt,
    "sigmoid": jax.nn.sigmoid,
    "sin": jnp.sin,
    "sinh": jnp.sinh,
    "sqrt": jnp.sqrt,
    "tan": jnp.tan,
    "tanh": jnp.tanh,
}.items():
    _unary(_name, _function, wide=True)

_unary("conj_physical", jnp.conj)
_unary("_conj", jnp.conj)
_unary("_conj_physical", jnp.conj)
_unary("clone", lambda x: x)
_unary("alias", lambda x: x)
_unary("detach", lambda x: x)
_unary("lift_fresh_copy", lambda x: x)
_unary("neg", lambda x: -x)
_unary("relu", lambda x: jnp.where(jnp.isnan(x), x, jnp.maximum(x, 0)))
_unary("reciprocal", lambda x: 1 / x)
_unary(
    "sgn",
    lambda x: (
        jnp.where(x == 0, 0, x / jnp.abs(x))
        if is_kind(x.dtype, jnp.complexfloating)
        else jnp.sign(x)
    ),
)


@lowers("abs.default")
def absolute(out: Out, x: Any) -> Any:
    """Of complex numbers, their length."""
    return x if x.dtype == jnp.bool_ else jnp.abs(x).astype(out.dtype)


@lowers("sign.default")
def sign(out: Out, x: Any) -> Any:
    """Zero for NaN."""
    if x.dtype == jnp.bool_:
        return x
    if is_kind(x.dtype, jnp.floating):
        return jnp.where(jnp.isnan(x), 0, jnp.sign(x)).astype(out.dtype)
    return jnp.sign(x)


def _rounding(name: str, function: Callable[[Any], Any]) -> None:
    def lower(out: Out, x: Any) -> Any:
        return function(x) if is_kind(x.dtype, jnp.floating) else x

    lowers(f"{name}.default")(lower)


_rounding("ceil", jnp.ceil)
_rounding("floor", jnp.floor)
_rounding("round", jnp.round)
_rounding("trunc", jnp.trunc)


@lowers("round.decimals")
def round_decimals(out: Out, x: Any, *, decimals: int) -> Any:
    """Half to even after a multiplication, whose rounding counts."""
    if not decimals or not is_kind(x.dtype, jnp.floating):
        return jnp.round(x) if is_kind(x.dtype, jnp.floating) else x
    wide = x.astype(computed_in(x.dtype))
    tens = jnp.asarray(10.0 ** abs(decimals), wide.dtype)
    found = jnp.round(wide * tens) / tens if decimals > 0 else jnp.round(wide / tens) * tens
    return found.astype(out.dtype)


@lowers("frac.default")
def frac(out: Out, x: Any) -> Any:
    """With the sign of ``x``."""
    return x - jnp.trunc(x)


@lowers("isnan.default")
def isnan(out: Out, x: Any) -> Any:
    """Of integers never."""
    return jnp.isnan(x) if is_kind(x.dtype, jnp.inexact) else jnp.zeros(x.shape, bool)


@lowers("isinf.default")
def isinf(out: Out, x: Any) -> Any:
    """Of integers never."""
    return jnp.isinf(x) if is_kind(x.dtype, jnp.inexact) else jnp.zeros(x.shape, bool)


@lowers("isfinite.default")
def isfinite(out: Out, x: Any) -> Any:
    """Of integers always."""
    return jnp.isfinite(x) if is_kind(x.dtype, jnp.inexact) else jnp.ones(x.shape, bool)


@lowers("signbit.default")
def signbit(out: Out, x: Any) -> Any:
    """Of negative zero too."""
    if x.dtype == jnp.bool_:
        return jnp.zeros(x.shape, bool)
    return jnp.signbit(x)


@lowers("logical_not.default")
def logical_not(out: Out, x: Any) -> Any:
    """Whether it is zero."""
    return x == 0


@lowers("bitwise_not.default")
def bitwise_not(out: Out, x: Any) -> Any:
    """Of booleans, not."""
    return ~x


@lowers("angle.default")
def angle(out: Out, x: Any) -> Any:
    """Of real numbers 0 or pi; NaN stays."""
    if is_kind(x.dtype, jnp.complexfloating):
        return jnp.angle(x).astype(out.dtype)
    wide = x.astype(out.dtype)
    found = jnp.where(wide < 0, jnp.asarray(math.pi, out.dtype), jnp.zeros((), out.dtype))
    return jnp.where(jnp.isnan(wide), wide, found)


@lowers("_to_copy.default", "prims.convert_element_type.default")
def to_copy(out: Out, x: Any, dtype: Any = None) -> Any:
    """In another dtype."""
    return converted(x, out.dtype)


@lowers("copy.default")
def copy(out: Out, x: Any, source: Any, non_blocking: bool = False) -> Any:
    """The source, in shape and dtype of ``x``."""
    return jnp.broadcast_to(converted(source, out.dtype), out.shape)


@lowers_batches(of_result, "where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def where(out: Out, condition: Any, a: Any, b: Any) -> Any:
    """One or the other."""
    return jnp.where(condition != 0, to_dtype(a, out.dtype), to_dtype(b, out.dtype))


@lowers("clamp.default", "clamp.Tensor")
def clamp(out: Out, x: Any, low: Any = None, high: Any = None, **named: Any) -> Any:
    """NaN stays, also that of a bound."""
    low, high = named.get("min", low), named.get("max", high)
    found = to_dtype(x, out.dtype)
    if low is not None:
        found = jnp.maximum(found, to_dtype(low, out.dtype))
    if high is not None:
        found = jnp.minimum(found, to_dtype(high, out.dtype))
    return found


@lowers("hardtanh.default")
def hardtanh(out: Out, x: Any, min_val: Any = -1, max_val: Any = 1) -> Any:
    """Clamped."""
    return clamp(out, x, min_val, max_val)


@lowers("leaky_relu.default")
def leaky_relu(out: Out, x: Any, negative_slope: float = 0.01) -> Any:
    """NaN stays."""
    return jnp.where(x > 0, x, x * to_dtype(negative_slope, x.dtype))


@lowers("hardshrink_backward.default", "softshrink_backward.default")
def shrink_backward(out: Out, cotangent: Any, x: Any, lambd: float) -> Any:
    """Nothing comes through near 0; NaN is not near it."""
    return jnp.where((x >= -lambd) & (x <= lambd), 0, cotangent).astype(out.dtype)


@lowers("glu_jvp.default")
def glu_jvp(out: Out, glu: Any, x: Any, dx: Any, dim: int) -> Any:
    """The tangent of one half times the sigmoid of the other."""
    _, gate = jnp.split(x, 2, axis=dim)
    moved, gate_moved = jnp.split(dx, 2, axis=dim)
    share = jax.nn.sigmoid(gate)
    return (share * moved + glu * (1 - share) * gate_moved).astype(out.dtype)


@lowers("elu.default")
def elu(out: Out, x: Any, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Any:
    """Narrow floats are computed in float32."""
    wide = x.astype(computed_in(x.dtype))
    below = jnp.expm1(wide * input_scale) * (alpha * scale)
    return jnp.where(wide > 0, wide * scale, below).astype(out.dtype)


@lowers("gelu.default")
def gelu(out: Out, x: Any, approximate: str = "none") -> Any:
    """Narrow floats are computed in float32."""
    wide = x.astype(computed_in(x.dtype))
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide * wide * wide)
        return (0.5 * wide * (1 + jnp.tanh(inner))).astype(out.dtype)
    return (wide * 0.5 * (1 + lax.erf(wide * math.sqrt(0.5)))).astype(out.dtype)


@lowers("view.dtype")
def view_dtype(out: Out, x: Any, dtype: Any) -> Any:
    """The same bits."""
    if x.dtype.itemsize != np.dtype(dtype).itemsize:
        raise CannotLowerError("a view of another width")
    return lax.bitcast_convert_type(x, dtype)
