"""Operations that make one element of many, and running ones."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.scipy import special

from .registry import Out, axes_of, computed_in, lowers


def _added(x: Any, out: Out, axes: Any, keepdim: bool) -> Any:
    total = jnp.sum(x.astype(computed_in(out.dtype)), axis=axes, keepdims=keepdim)
    return total.astype(out.dtype)


@lowers("sum.default", "sum.dim_IntList")
def sum_(out: Out, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """In the dtype of the result; narrow floats in float32."""
    return _added(x, out, axes_of(dim, x.ndim), keepdim)


@lowers("mean.default", "mean.dim")
def mean(out: Out, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """NaN of nothing."""
    axes = axes_of(dim, x.ndim)
    count = math.prod(x.shape[axis] for axis in axes)
    total = jnp.sum(x.astype(computed_in(out.dtype)), axis=axes, keepdims=keepdim)
    return (total / count if count else total * jnp.nan).astype(out.dtype)


@lowers("prod.default", "prod.dim_int")
def prod(out: Out, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """In the dtype of the result; narrow floats in float32."""
    wide = x.astype(computed_in(out.dtype))
    return jnp.prod(wide, axis=axes_of(dim, x.ndim), keepdims=keepdim).astype(out.dtype)


def _extreme(name: str, function: Any, which: Any) -> None:
    def reduced(out: Out, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        return function(x, axis=axes_of(dim, x.ndim), keepdims=keepdim)

    def chosen(outs: Any, x: Any, dim: int, keepdim: bool = False) -> Any:
        if not x.ndim:
            return x, jnp.zeros((), jnp.int64)
        # The first of equals, and of NaNs, as both libraries have it.
        places = which(x, axis=dim, keepdims=True).astype(jnp.int64)
        values = function(x, axis=dim, keepdims=True)
        if not keepdim:
            values, places = jnp.squeeze(values, dim), jnp.squeeze(places, dim)
        return values, places

    def place(out: Out, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if not x.ndim:
            return jnp.zeros((), jnp.int64)
        if dim is None:
            flat = which(jnp.ravel(x), axis=0).astype(jnp.int64)
            return jnp.reshape(flat, out.shape)
        return which(x, axis=dim, keepdims=keepdim).astype(jnp.int64)

    lowers(f"a{name}.default", f"{name}.default")(reduced)
    lowers(f"{name}.dim")(chosen)
    lowers(f"arg{name}.default")(place)


_extreme("max", jnp.max, jnp.argmax)
_extreme("min", jnp.min, jnp.argmin)


@lowers("any.default", "any.dim", "any.dims")
def any_(out: Out, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether one is not zero."""
    return jnp.any(x != 0, axis=axes_of(dim, x.ndim), keepdims=keepdim).astype(out.dtype)


@lowers("all.default", "all.dim", "all.dims")
def all_(out: Out, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether none is zero."""
    return jnp.all(x != 0, axis=axes_of(dim, x.ndim), keepdims=keepdim).astype(out.dtype)


def _moments(x: Any, dim: Any, correction: Any, keepdim: bool, dtype: Any) -> tuple[Any, Any]:
    axes = axes_of(dim, x.ndim)
    count = math.prod(x.shape[axis] for axis in axes)
    wide = x.astype(computed_in(x.dtype))
    centre = jnp.sum(wide, axis=axes, keepdims=True) / jnp.asarray(count, dtype=computed_in(dtype))
    apart = jnp.abs(wide - centre)
    freedom = max(count - (1 if correction is None else correction), 0)
    variance = jnp.sum(apart * apart, axis=axes, keepdims=keepdim)
    variance = variance / jnp.asarray(freedom, variance.dtype)
    return variance.astype(dtype), centre if keepdim else jnp.squeeze(centre, axes)


@lowers("var.correction")
def var(out: Out, x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """NaN or infinite where nothing is left to divide by."""
    return _moments(x, dim, correction, keepdim, out.dtype)[0]


@lowers("std.correction")
def std(out: Out, x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    """The root of that."""
    return jnp.sqrt(_moments(x, dim, correction, keepdim, out.dtype)[0])


@lowers("var_mean.correction")
def var_mean(
    outs: Any, x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False
) -> Any:
    """Both."""
    variance, centre = _moments(x, dim, correction, keepdim, outs[0].dtype)
    return variance, centre.astype(outs[1].dtype)


@lowers("cumsum.default")
def cumsum(out: Out, x: Any, dim: int, dtype: Any = None) -> Any:
    """In the dtype of the result; narrow floats in float32."""
    wide = x.astype(computed_in(out.dtype))
    return (jnp.cumsum(wide, axis=dim) if x.ndim else wide).astype(out.dtype)


@lowers("cumprod.default")
def cumprod(out: Out, x: Any, dim: int, dtype: Any = None) -> Any:
    """In the dtype of the result; narrow floats in float32."""
    wide = x.astype(computed_in(out.dtype))
    return (jnp.cumprod(wide, axis=dim) if x.ndim else wide).astype(out.dtype)


@lowers("logcumsumexp.default")
def logcumsumexp(out: Out, x: Any, dim: int) -> Any:
    """The logarithm of a running sum of exponentials."""
    return lax.cumlogsumexp(x, axis=dim % x.ndim) if x.ndim else x


@lowers("logsumexp.default")
def logsumexp(out: Out, x: Any, dim: Any, keepdim: bool = False) -> Any:
    """Of integers, in float."""
    wide = x.astype(computed_in(out.dtype))
    found = special.logsumexp(wide, axis=axes_of(dim, x.ndim), keepdims=keepdim)
    return found.astype(out.dtype)
