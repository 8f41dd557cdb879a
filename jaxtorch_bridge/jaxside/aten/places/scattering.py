"""Elements put together where several go to one place, and those that a mask chooses."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..batches import before_axis, lowers_batches
from ..registry import Out, limits_of, lowers
from .indexing import along, put


@lowers_batches(before_axis, "scatter_reduce.two")
def scatter_reduce(
    out: Out, x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """Along an axis, by a sum, a product, a mean, or the greatest or least."""
    flat = x.reshape(1) if not x.ndim else x
    places = index.reshape(1) if not index.ndim else index
    values = source.reshape(1) if not source.ndim else source
    if not places.size:
        return x
    values = values[tuple(slice(0, size) for size in places.shape)]
    found = _put_together(flat, along(flat, dim, places), values, reduce, include_self)
    return found.reshape(x.shape)


@lowers_batches(before_axis, "index_reduce.default")
def index_reduce(
    out: Out, x: Any, dim: int, index: Any, source: Any, reduce: str, *, include_self: bool = True
) -> Any:
    """Slices along an axis."""
    flat = x.reshape(1) if not x.ndim else x
    values = source.reshape(1) if not source.ndim else source
    where = (slice(None),) * (dim % flat.ndim) + (jnp.atleast_1d(index),)
    if not values.size:
        return x
    return _put_together(flat, where, values, reduce, include_self).reshape(x.shape)


def _put_together(x: Any, where: Any, values: Any, reduce: str, include_self: bool) -> Any:
    dtype = x.dtype
    hit = jnp.zeros(x.shape, jnp.int64).at[where].add(1)
    method, neutral = {
        "sum": ("add", 0),
        "mean": ("add", 0),
        "prod": ("multiply", 1),
        "amax": ("max", limits_of(dtype)[0]),
        "amin": ("min", limits_of(dtype)[1]),
    }[reduce]
    start = x if include_self else jnp.where(hit > 0, jnp.asarray(neutral, dtype), x)
    values = values.astype(dtype)
    found = put(start, where, values, method)
    if reduce in ("amax", "amin") and jnp.issubdtype(dtype, jnp.floating):
        # Which of a number and a NaN is greater depends on the order.
        bad = jnp.zeros(x.shape, bool).at[where].max(jnp.isnan(values))
        bad = bad | jnp.isnan(start)
        found = jnp.where(bad, jnp.asarray(jnp.nan, dtype), found)
    if reduce == "mean":
        count = jnp.maximum(hit + (1 if include_self else 0), 1)
        if jnp.issubdtype(dtype, jnp.integer):
            return jnp.floor_divide(found, count.astype(dtype))
        return found / count.astype(dtype)
    return found


@lowers("put.default")
def put_(out: Out, x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """At places of the whole, counted row by row."""
    flat, where, values = jnp.ravel(x), jnp.ravel(index), jnp.ravel(source).astype(x.dtype)
    found = put(flat, where, values, "add" if accumulate else "set")
    return found.reshape(x.shape)


def _ordinals(mask: Any) -> Any:
    """Which of those that a mask chooses each element is, row by row."""
    return jnp.cumsum(jnp.ravel(mask).astype(jnp.int64)).reshape(mask.shape) - 1


@lowers("masked_scatter.default")
def masked_scatter(out: Out, x: Any, mask: Any, source: Any) -> Any:
    """The first elements of the source, where the mask is set."""
    mask = jnp.broadcast_to(mask, out.shape)
    if not source.size:
        return jnp.broadcast_to(x, out.shape)
    values = jnp.ravel(source)[jnp.maximum(_ordinals(mask), 0)]
    return jnp.where(mask, values, x)


@lowers("masked_scatter_backward.default")
def masked_scatter_backward(out: Out, cotangent: Any, mask: Any, sizes: Any) -> Any:
    """To the first elements of the source; noughts for what was not taken."""
    mask = jnp.broadcast_to(mask, cotangent.shape)
    found = jnp.zeros(out.shape, out.dtype).reshape(-1)
    where = jnp.where(mask, _ordinals(mask), found.size)
    return found.at[jnp.ravel(where)].add(jnp.ravel(cotangent), mode="drop").reshape(out.shape)


@lowers("nonzero_static.default")
def nonzero_static(out: Out, x: Any, *, size: int, fill_value: int = -1) -> Any:
    """Places of what is not zero, as many as were asked for."""
    if not x.ndim:
        return jnp.zeros(out.shape, out.dtype)
    found = jnp.nonzero(x, size=size, fill_value=fill_value)
    return jnp.stack(found, axis=-1).astype(out.dtype)
