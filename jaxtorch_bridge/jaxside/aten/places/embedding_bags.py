"""Rows of a table, put together in bags by a sum, a mean, or the greatest, with the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ..registry import CannotLowerError, Out, computed_in, lowers

_SUM, _MEAN, _MAX = 0, 1, 2


def _bags(count: int, offsets: Any) -> Any:
    """The bag of each index: each begins where its offset says."""
    return jnp.searchsorted(offsets, jnp.arange(count), side="right").astype(jnp.int64) - 1


def _kept(indices: Any, padding_idx: int) -> Any:
    return indices != padding_idx if padding_idx >= 0 else jnp.ones(indices.shape, bool)


@lowers("_embedding_bag.default", "_embedding_bag_forward_only.default")
def embedding_bag(
    outs: Sequence[Out],
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = _SUM,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:
    """With the bag of each index, how many are in each, and which were the greatest."""
    count = outs[0].shape[0]
    bags, kept = _bags(indices.size, offsets[:count]), _kept(indices, padding_idx)
    where = jnp.where(kept, bags, count)
    sizes = jnp.zeros(count, jnp.int64).at[where].add(1, mode="drop")
    rows = weight[indices].astype(computed_in(weight.dtype))
    if per_sample_weights is not None:
        rows = rows * per_sample_weights[:, None].astype(rows.dtype)
    greatest = jnp.zeros(outs[3].shape, outs[3].dtype)
    if mode == _MAX:
        found, chosen = _greatest(rows, indices, where, count)
        if greatest.shape == chosen.shape:
            greatest = chosen.astype(outs[3].dtype)
    else:
        found = jnp.zeros((count, weight.shape[1]), rows.dtype).at[where].add(rows, mode="drop")
        if mode == _MEAN:
            found = found / jnp.maximum(sizes, 1)[:, None].astype(found.dtype)
    rest = [_shaped(one, out) for one, out in zip((bags, sizes), outs[1:3], strict=True)]
    return [found.astype(outs[0].dtype), *rest, greatest]


def _shaped(x: Any, out: Out) -> Any:
    """Noughts where torch keeps another shape, since then nobody reads it."""
    return x.astype(out.dtype) if x.shape == out.shape else jnp.zeros(out.shape, out.dtype)


def _greatest(rows: Any, indices: Any, where: Any, count: int) -> tuple[Any, Any]:
    """Of each bag and column; of an empty one 0. And the first index that has it."""
    shape = (count, rows.shape[1])
    least = jnp.full(shape, -jnp.inf, rows.dtype)
    best = least.at[where].max(rows, mode="drop")
    has_it = rows == best[jnp.minimum(where, count - 1)]
    order = jnp.where(has_it, jnp.arange(rows.shape[0])[:, None], rows.shape[0])
    first = jnp.full(shape, rows.shape[0]).at[where].min(order, mode="drop")
    is_empty = first == rows.shape[0]
    chosen = indices[jnp.minimum(first, rows.shape[0] - 1)] if rows.shape[0] else first
    return jnp.where(is_empty, 0, best), jnp.where(is_empty, 0, chosen)


@lowers("_embedding_bag_backward.default")
def embedding_bag_backward(
    out: Out,
    cotangent: Any,
    indices: Any,
    offsets: Any,
    offset2bag: Any,
    bag_size: Any,
    maximum_indices: Any,
    num_weights: int,
    scale_grad_by_freq: bool,
    mode: int,
    sparse: bool,
    per_sample_weights: Any,
    padding_idx: int = -1,
) -> Any:
    """By the table."""
    if sparse:
        raise CannotLowerError("a sparse gradient")
    count, width = cotangent.shape
    bags, kept = _bags(indices.size, offsets[:count]), _kept(indices, padding_idx)
    sizes = jnp.zeros(count, jnp.int64).at[jnp.where(kept, bags, count)].add(1, mode="drop")
    found = jnp.zeros((num_weights, width), computed_in(cotangent.dtype))
    share = cotangent.astype(found.dtype)
    if mode == _MAX:
        share = jnp.where(sizes[:, None] > 0, share, 0)
        return found.at[maximum_indices, jnp.arange(width)].add(share).astype(out.dtype)
    if mode == _MEAN:
        share = share / jnp.maximum(sizes, 1)[:, None].astype(share.dtype)
    share = share[bags]
    if per_sample_weights is not None:
        share = share * per_sample_weights[:, None].astype(share.dtype)
    if scale_grad_by_freq:
        often = jnp.zeros(num_weights, jnp.int64).at[indices].add(1)[indices]
        share = share / often[:, None].astype(share.dtype)
    share = jnp.where(kept[:, None], share, 0)
    return found.at[indices].add(share).astype(out.dtype)


@lowers("_embedding_bag_per_sample_weights_backward.default")
def embedding_bag_weights_backward(
    out: Out,
    cotangent: Any,
    weight: Any,
    indices: Any,
    offsets: Any,
    offset2bag: Any,
    mode: int,
    padding_idx: int = -1,
) -> Any:
    """By the weights of a sum."""
    bags = _bags(indices.size, offsets[: cotangent.shape[0]])
    wide = computed_in(weight.dtype)
    found = (cotangent[bags].astype(wide) * weight[indices].astype(wide)).sum(axis=-1)
    return jnp.where(_kept(indices, padding_idx), found, 0).astype(out.dtype)
