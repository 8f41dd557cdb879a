"""Parts of an axis, one behind the other, each made one element."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..registry import CannotLowerError, Out, computed_in, lowers


@lowers("segment_reduce.default")
def segment_reduce(
    out: Out,
    x: Any,
    reduce: str,
    *,
    lengths: Any = None,
    indices: Any = None,
    offsets: Any = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: Any = None,
) -> Any:
    """Parts of an axis, one behind the other."""
    inside = _inside(lengths, offsets, x.shape[axis])
    methods: dict[str, tuple[Any, Any]] = {
        "sum": (jnp.sum, 0),
        "mean": (jnp.sum, 0),
        "prod": (jnp.prod, 1),
        "max": (jnp.max, -jnp.inf),
        "min": (jnp.min, jnp.inf),
    }
    method, neutral = methods[reduce]
    start = neutral if initial is None else initial
    rest = x.ndim - axis - 1
    # One behind the other: which segment, and which element of the axis.
    inside = inside.reshape(inside.shape + (1,) * rest)
    wide = jnp.expand_dims(x, axis).astype(computed_in(x.dtype))
    chosen = jnp.where(inside, wide, jnp.asarray(neutral, wide.dtype))
    found = method(chosen, axis=axis + 1)
    begin = jnp.asarray(start, found.dtype)
    if reduce in ("sum", "mean"):
        found = found + begin
    elif reduce == "prod":
        found = found * begin
    else:
        found = (jnp.maximum if reduce == "max" else jnp.minimum)(found, begin)
    if reduce == "mean":
        count = inside.sum(axis=axis + 1)
        nothing = jnp.asarray(jnp.nan if initial is None else initial, found.dtype)
        found = jnp.where(count > 0, found / jnp.maximum(count, 1).astype(found.dtype), nothing)
    return found.astype(out.dtype)


def _inside(lengths: Any, offsets: Any, size: int) -> Any:
    if offsets is None:
        ends = jnp.cumsum(lengths, axis=-1)
        starts = ends - lengths
    else:
        starts, ends = offsets[..., :-1], offsets[..., 1:]
    places = jnp.arange(size)
    return (places >= starts[..., None]) & (places < ends[..., None])


@lowers("_segment_reduce_backward.default")
def segment_reduce_backward(
    out: Out,
    cotangent: Any,
    result: Any,
    x: Any,
    reduce: str,
    *,
    lengths: Any = None,
    offsets: Any = None,
    axis: int = 0,
    initial: Any = None,
) -> Any:
    """Of the greatest or least, equals get equal shares."""
    if reduce == "prod":
        raise CannotLowerError("the gradient of a product")
    inside = _inside(lengths, offsets, x.shape[axis])
    inside = inside.reshape(inside.shape + (1,) * (x.ndim - axis - 1))
    share = jnp.expand_dims(cotangent, axis + 1)
    if reduce == "mean":
        share = share / jnp.maximum(inside.sum(axis=axis + 1, keepdims=True), 1).astype(x.dtype)
    elif reduce != "sum":
        wide, best = jnp.expand_dims(x, axis), jnp.expand_dims(result, axis + 1)
        inside = inside & ((wide == best) | jnp.isnan(wide))
        count = inside.sum(axis=axis + 1, keepdims=True)
        share = share / jnp.maximum(count, 1).astype(x.dtype)
    return jnp.where(inside, share, 0).sum(axis=axis).astype(out.dtype)
