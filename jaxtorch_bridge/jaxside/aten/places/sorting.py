"""Order, and what is found by it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ..registry import Out, lowers


def ordered(x: Any, dim: int, descending: bool) -> tuple[Any, Any]:
    """Stable: equals stay in order, and NaN is the greatest."""
    if not x.ndim:
        return x, jnp.zeros((), jnp.int64)
    places = jnp.argsort(x, axis=dim, stable=True, descending=descending).astype(jnp.int64)
    return jnp.take_along_axis(x, places, axis=dim), places


@lowers("sort.default")
def sort(outs: Sequence[Out], x: Any, dim: int = -1, descending: bool = False) -> Any:
    """Values and where they were."""
    return ordered(x, dim, descending)


@lowers("sort.stable")
def sort_stable(
    outs: Sequence[Out], x: Any, *, stable: Any = None, dim: int = -1, descending: bool = False
) -> Any:
    """The same."""
    return ordered(x, dim, descending)


@lowers("argsort.default", "argsort.stable")
def argsort(out: Out, x: Any, dim: int = -1, descending: bool = False, **_: Any) -> Any:
    """Where the values were."""
    return ordered(x, dim, descending)[1]


@lowers("topk.default")
def topk(
    outs: Sequence[Out], x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Any:
    """The first of them in order; which of equals torch gives is nowhere promised."""
    if not x.ndim:
        return x, jnp.zeros((), jnp.int64)
    values, places = ordered(x, dim, largest)
    where = (slice(None),) * (dim % x.ndim) + (slice(0, k),)
    return values[where], places[where]


@lowers("searchsorted.Tensor")
def searchsorted(
    out: Out,
    ordered: Any,
    x: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Any = None,
) -> Any:
    """Where each would stand, row by row."""
    if sorter is not None:
        ordered = jnp.take_along_axis(ordered, sorter, axis=-1)
    after = right or side == "right"
    rows = ordered if ordered.ndim > 1 else ordered.reshape((1,) * x.ndim + ordered.shape)
    if ordered.ndim > 1:
        rows = ordered[..., None, :]
    below = rows <= x[..., None] if after else rows < x[..., None]
    return below.sum(axis=-1).astype(out.dtype)


@lowers("bucketize.Tensor")
def bucketize(
    out: Out, x: Any, boundaries: Any, *, out_int32: bool = False, right: bool = False
) -> Any:
    """Where each would stand."""
    return searchsorted(out, boundaries, x, right=right)


@lowers("histc.default")
def histc(out: Out, x: Any, bins: int = 100, min: Any = 0, max: Any = 0) -> Any:
    """How many are in each of some equal parts; what is outside of all is not counted."""
    low, high = jnp.asarray(min, x.dtype), jnp.asarray(max, x.dtype)
    if min == max:
        low, high = x.min(), x.max()
        # Of equal values, half a unit around them.
        low, high = jnp.where(low == high, low - 1, low), jnp.where(low == high, high + 1, high)
    flat = jnp.ravel(x)
    place = ((flat - low) * bins / (high - low)).astype(jnp.int64)
    place = jnp.where(flat == high, bins - 1, place)
    inside = (flat >= low) & (flat <= high)
    return jnp.zeros(bins, out.dtype).at[jnp.where(inside, place, bins)].add(1, mode="drop")
