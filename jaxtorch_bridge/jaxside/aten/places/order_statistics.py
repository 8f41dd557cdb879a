"""Values by their place in an order, the most frequent ones, and running extremes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from ..batches import before_axis, lowers_batches
from ..registry import Out, lowers
from .sorting import ordered


def _is_nan(x: Any) -> Any:
    is_float = jnp.issubdtype(x.dtype, jnp.inexact)
    return jnp.isnan(x) if is_float else jnp.zeros(x.shape, bool)


def _taken(x: Any, dim: int, keepdim: bool, place: Any) -> Any:
    """The value at a place of the order along an axis, and where it stood."""
    if not x.ndim:
        return x, jnp.zeros((), jnp.int64)
    values, places = ordered(x, dim, False)
    at = jnp.broadcast_to(place, [1 if n == dim % x.ndim else s for n, s in enumerate(x.shape)])
    found = [jnp.take_along_axis(one, at, axis=dim) for one in (values, places)]
    return found if keepdim else [jnp.squeeze(one, dim) for one in found]


@lowers("kthvalue.default")
def kthvalue(outs: Sequence[Out], x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The least but ``k - 1``."""
    return _taken(x, dim, keepdim, k - 1)


def _middle(x: Any, dim: int, *, without_nan: bool) -> Any:
    """Of an even number the lower one."""
    if not x.ndim:
        return 0
    count = x.shape[dim]
    bad = _is_nan(x).sum(axis=dim, keepdims=True)
    if without_nan:
        return jnp.maximum((count - bad - 1) // 2, 0)
    # NaNs are the last ones, and the first of them is the result.
    return jnp.where(bad > 0, count - bad, (count - 1) // 2)


def _median(name: str, *, without_nan: bool) -> None:
    def along(outs: Sequence[Out], x: Any, dim: int = -1, keepdim: bool = False) -> Any:
        return _taken(x, dim, keepdim, _middle(x, dim, without_nan=without_nan))

    def whole(out: Out, x: Any) -> Any:
        if not x.size:
            return jnp.full((), jnp.nan, out.dtype)
        flat = jnp.ravel(x)
        return _taken(flat, 0, False, _middle(flat, 0, without_nan=without_nan))[0]

    lowers(f"{name}.dim")(along)
    lowers(f"{name}.default")(whole)


_median("median", without_nan=False)
_median("nanmedian", without_nan=True)


@lowers_batches(before_axis, "mode.default")
def mode(outs: Sequence[Out], x: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent value, of several the least; and where it stands last."""
    if not x.ndim or not x.size:
        return [jnp.reshape(x, outs[0].shape), jnp.zeros(outs[1].shape, jnp.int64)]
    values, places = (jnp.moveaxis(one, dim, -1) for one in ordered(x, dim, False))
    differs = values[..., 1:] != values[..., :-1]
    edge = jnp.ones((*values.shape[:-1], 1), bool)
    is_first, is_last = (
        jnp.concatenate(parts, axis=-1) for parts in ([edge, differs], [differs, edge])
    )
    at = jnp.arange(values.shape[-1])
    starts = lax.cummax(jnp.where(is_first, at, 0), axis=values.ndim - 1)
    best = jnp.argmax(jnp.where(is_last, at - starts + 1, 0), axis=-1, keepdims=True)
    found = [jnp.take_along_axis(one, best, axis=-1) for one in (values, places)]
    return [jnp.moveaxis(one, -1, dim) if keepdim else one[..., 0] for one in found]


def _running(name: str, is_at_least: Any) -> None:
    def later(one: Any, other: Any) -> Any:
        """The later of equals, and of NaNs, which stay."""
        wins = _is_nan(other[0]) | (~_is_nan(one[0]) & is_at_least(other[0], one[0]))
        return [jnp.where(wins, b, a) for a, b in zip(one, other, strict=True)]

    def lower(outs: Sequence[Out], x: Any, dim: int) -> Any:
        if not x.ndim or not x.size:
            return x, jnp.zeros(x.shape, jnp.int64)
        places = lax.broadcasted_iota(jnp.int64, x.shape, dim % x.ndim)
        # Cut as `x` is, on a mesh.
        places += jnp.zeros_like(x, jnp.int64)
        return lax.associative_scan(later, [x, places], axis=dim % x.ndim)

    lowers(f"{name}.default")(lower)


_running("cummax", lambda a, b: a >= b)
_running("cummin", lambda a, b: a <= b)
