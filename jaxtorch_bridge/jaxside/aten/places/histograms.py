"""How many elements, or how much weight, lies between edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ..registry import Out, lowers


def _edges(x: Any, bins: int, limits: Any) -> Any:
    """Of equal parts, counted from both ends, as torch does."""
    if limits is None:
        low, high = (x.min(), x.max()) if x.size else (jnp.zeros((), x.dtype),) * 2
    else:
        low, high = (jnp.asarray(one, x.dtype) for one in limits)
    is_point = low == high
    low, high = jnp.where(is_point, low - 0.5, low), jnp.where(is_point, high + 0.5, high)
    places, step = jnp.arange(bins + 1), (high - low) / bins
    back = (bins - places).astype(x.dtype)
    ahead = places.astype(x.dtype)
    return jnp.where(places < (bins + 1) // 2, low + step * ahead, high - step * back)


def _counted(x: Any, edges: Sequence[Any], weight: Any, density: bool) -> Any:
    """Of points along the first axis; the last part holds its end as well."""
    where, inside = [], jnp.ones(x.shape[0], bool)
    for axis, ends in enumerate(edges):
        values = x[:, axis]
        at = jnp.searchsorted(ends, values, side="right") - 1
        where.append(jnp.where(values == ends[-1], ends.size - 2, at))
        inside = inside & (values >= ends[0]) & (values <= ends[-1])
    shape = tuple(ends.size - 1 for ends in edges)
    # What is outside goes nowhere.
    places = (jnp.where(inside, where[0], shape[0]), *where[1:])
    weights = jnp.ones(x.shape[0], x.dtype) if weight is None else weight.reshape(-1)
    found = jnp.zeros(shape, x.dtype).at[places].add(weights.astype(x.dtype), mode="drop")
    if density:
        found = found / found.sum()
        for axis, ends in enumerate(edges):
            widths = (ends[1:] - ends[:-1]).reshape(-1, *[1] * (len(edges) - axis - 1))
            found = found / widths
    return found


@lowers("histogram.bins_tensor")
def histogram(
    outs: Sequence[Out], x: Any, bins: Any, *, weight: Any = None, density: bool = False
) -> Any:
    """With the edges that were given."""
    return _counted(x.reshape(-1, 1), [bins], weight, density), bins


@lowers("histogram.bin_ct")
def histogram_of_parts(
    outs: Sequence[Out],
    x: Any,
    bins: int = 100,
    *,
    range: Any = None,
    weight: Any = None,
    density: bool = False,
) -> Any:
    """With the edges of equal parts."""
    edges = _edges(x, bins, range)
    return _counted(x.reshape(-1, 1), [edges], weight, density), edges


def _all_edges(x: Any, bins: Sequence[int], limits: Any) -> list[Any]:
    points = x.reshape(-1, x.shape[-1])
    return [
        _edges(points[:, axis], count, limits[2 * axis : 2 * axis + 2] if limits else None)
        for axis, count in enumerate(bins)
    ]


@lowers("_histogramdd_bin_edges.default")
def histogramdd_edges(
    outs: Sequence[Out],
    x: Any,
    bins: Sequence[int],
    *,
    range: Any = None,
    weight: Any = None,
    density: bool = False,
) -> Any:
    """Along each axis."""
    return _all_edges(x, bins, range)


@lowers("_histogramdd_from_bin_cts.default")
def histogramdd_of_parts(
    out: Out,
    x: Any,
    bins: Sequence[int],
    *,
    range: Any = None,
    weight: Any = None,
    density: bool = False,
) -> Any:
    """Of equal parts along each axis."""
    points = x.reshape(-1, x.shape[-1])
    return _counted(points, _all_edges(x, bins, range), weight, density)


@lowers("_histogramdd_from_bin_tensors.default")
def histogramdd(
    out: Out, x: Any, bins: Sequence[Any], *, weight: Any = None, density: bool = False
) -> Any:
    """Of the edges that were given."""
    return _counted(x.reshape(-1, x.shape[-1]), bins, weight, density)
