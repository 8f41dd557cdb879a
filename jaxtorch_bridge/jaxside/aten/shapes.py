"""Operations that put the same elements elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..._compat.jax.sharding import explicit_layout
from ...planner.sharding import is_whole
from .batches import before_axis_of_source, before_joined_axis, in_common, lowers_batches
from .merged_rows import VIEWS, split_for_both
from .registry import CannotLowerError, Out, lowers

_LAST = 2**63 - 1


@lowers_batches(in_common, *VIEWS)
def view(out: Out, x: Any, size: Sequence[int]) -> Any:
    """Another shape, row by row."""
    if is_whole(explicit_layout(x)):
        return jnp.reshape(x, out.shape)
    # JAX cannot tell it of axes that are split and merged at once, nor beside axes of one.
    x = jnp.squeeze(x, [axis for axis, size in enumerate(x.shape) if size == 1])
    shape = [size for size in out.shape if size != 1]
    found = jnp.reshape(jnp.reshape(x, split_for_both(x.shape, shape)), shape)
    return jnp.expand_dims(found, [axis for axis, size in enumerate(out.shape) if size == 1])


@lowers("permute.default")
def permute(out: Out, x: Any, dims: Sequence[int]) -> Any:
    """Axes in another order."""
    return jnp.transpose(x, [axis % x.ndim for axis in dims])


@lowers("t.default")
def t(out: Out, x: Any) -> Any:
    """Two axes exchanged, if there are two."""
    return x.T


@lowers("transpose.int")
def transpose(out: Out, x: Any, dim0: int, dim1: int) -> Any:
    """Two axes exchanged."""
    return jnp.swapaxes(x, dim0, dim1) if x.ndim else x


@lowers("expand.default")
def expand(out: Out, x: Any, size: Sequence[int], implicit: bool = False) -> Any:
    """Repeated along axes of one."""
    return jnp.broadcast_to(x, out.shape)


@lowers("squeeze.default", "squeeze.dim", "squeeze.dims", "unsqueeze.default")
def squeeze(out: Out, x: Any, *_: Any) -> Any:
    """Axes of one put in or left out."""
    return jnp.reshape(x, out.shape)


@lowers("select.int")
def select(out: Out, x: Any, dim: int, index: int) -> Any:
    """One place along an axis."""
    return lax.index_in_dim(x, index, dim % x.ndim, keepdims=False)


@lowers("slice.Tensor")
def slice_(
    out: Out, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    """A part of an axis."""
    places = _places(x.shape[dim], start, end, step)
    return lax.slice_in_dim(x, places.start, max(places.start, places.stop), step, dim % x.ndim)


def _places(size: int, start: Any, end: Any, step: int) -> range:
    """As Python counts: what is outside is cut off."""
    first = 0 if start is None else min(max(start + size if start < 0 else start, 0), size)
    last = size if end is None or end >= _LAST else end + size if end < 0 else end
    return range(first, min(max(last, first), size), step)


@lowers_batches(before_axis_of_source, "slice_scatter.default")
def slice_scatter(
    out: Out, x: Any, source: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    """A part of an axis replaced."""
    places = _places(x.shape[dim], start, end, step)
    where = (slice(None),) * (dim % x.ndim) + (np.arange(places.start, places.stop, step),)
    return x.at[where].set(source.astype(x.dtype), unique_indices=True)


@lowers_batches(before_axis_of_source, "select_scatter.default")
def select_scatter(out: Out, x: Any, source: Any, dim: int, index: int) -> Any:
    """One place along an axis replaced."""
    where = (slice(None),) * (dim % x.ndim) + (index,)
    return x.at[where].set(source.astype(x.dtype))


@lowers("diagonal.default", "diagonal_copy.default")
def diagonal(out: Out, x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    """The diagonal along a new last axis."""
    return jnp.diagonal(x, offset, dim1, dim2)


@lowers("diagonal_scatter.default")
def diagonal_scatter(
    out: Out, x: Any, source: Any, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Any:
    """The diagonal replaced."""
    places = np.arange(source.shape[-1])
    whole = jnp.moveaxis(x, (dim1, dim2), (-2, -1))
    where = (..., places + max(-offset, 0), places + max(offset, 0))
    found = whole.at[where].set(source.astype(x.dtype), unique_indices=True)
    return jnp.moveaxis(found, (-2, -1), (dim1, dim2))


@lowers_batches(before_joined_axis, "cat.default")
def cat(out: Out, tensors: Sequence[Any], dim: int = 0) -> Any:
    """One behind the other; empty ones of one axis are left out, as torch does."""
    kept = [one for one in tensors if one.shape != (0,) or len(out.shape) == 1]
    if not kept:
        return jnp.zeros(out.shape, out.dtype)
    return jnp.concatenate([one.astype(out.dtype) for one in kept], axis=dim)


@lowers("stack.default")
def stack(out: Out, tensors: Sequence[Any], dim: int = 0) -> Any:
    """Along a new axis."""
    return jnp.stack([one.astype(out.dtype) for one in tensors], axis=dim)


@lowers("split_with_sizes.default", "split.Tensor", "unbind.int")
def split(outs: Sequence[Out], x: Any, sizes: Any = 0, dim: int | None = None) -> Any:
    """Parts along an axis; of `unbind`, places."""
    if outs and len(outs[0].shape) < x.ndim:
        return [lax.index_in_dim(x, at, sizes % x.ndim, keepdims=False) for at in range(len(outs))]
    axis = (dim or 0) % x.ndim
    ends = np.cumsum([one.shape[axis] for one in outs])
    return [
        lax.slice_in_dim(x, int(end) - one.shape[axis], int(end), axis=axis)
        for one, end in zip(outs, ends, strict=True)
    ]


@lowers("repeat.default")
def repeat(out: Out, x: Any, repeats: Sequence[int]) -> Any:
    """The whole, several times."""
    return jnp.tile(x, tuple(repeats))


@lowers("flip.default")
def flip(out: Out, x: Any, dims: Sequence[int]) -> Any:
    """Backwards along axes."""
    return jnp.flip(x, tuple(dims)) if dims else x


@lowers("roll.default")
def roll(out: Out, x: Any, shifts: Any, dims: Any = ()) -> Any:
    """Turned along axes; without any, as if it had one."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if not dims:
        return jnp.roll(jnp.ravel(x), shifts[0]).reshape(x.shape)
    return jnp.roll(x, shifts, tuple(dims) if not isinstance(dims, int) else (dims,))


@lowers("constant_pad_nd.default")
def constant_pad_nd(out: Out, x: Any, pad: Sequence[int], value: Any = 0) -> Any:
    """Filled up around it; less than none is cut off."""
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2)
    pairs += [(pad[at], pad[at + 1]) for at in range(len(pad) - 2, -1, -2)]
    fill = jnp.asarray(value, x.dtype)
    return lax.pad(x, fill, [(low, high, 0) for low, high in pairs])


def _mirrored(name: str, mode: str, axes: int) -> None:
    def lower(out: Out, x: Any, padding: Sequence[int]) -> Any:
        pairs = [(0, 0)] * (x.ndim - axes)
        pairs += [(padding[at], padding[at + 1]) for at in range(len(padding) - 2, -1, -2)]
        if any(side < 0 for pair in pairs for side in pair):
            raise CannotLowerError("padding by less than nothing")
        return jnp.pad(x, pairs, mode=mode)

    lowers(f"{name}.default")(lower)


for _axes in (1, 2, 3):
    _mirrored(f"reflection_pad{_axes}d", "reflect", _axes)
    _mirrored(f"replication_pad{_axes}d", "edge", _axes)


@lowers("as_strided.default", "as_strided_copy.default")
def as_strided(
    out: Out, x: Any, size: Sequence[int], stride: Sequence[int], storage_offset: Any = 0
) -> Any:
    """Elements by their places in a row-major tensor."""
    return jnp.ravel(x)[_strided_places(x, size, stride, storage_offset)]


@lowers("as_strided_scatter.default")
def as_strided_scatter(
    out: Out,
    x: Any,
    source: Any,
    size: Sequence[int],
    stride: Sequence[int],
    storage_offset: Any = 0,
) -> Any:
    """Elements replaced, by their places in a row-major tensor."""
    places = _strided_places(x, size, stride, storage_offset)
    if np.unique(places).size < places.size:
        raise CannotLowerError("a place that is written to twice")
    return jnp.ravel(x).at[places].set(source.astype(x.dtype)).reshape(x.shape)


def _strided_places(
    x: Any, size: Sequence[int], stride: Sequence[int], storage_offset: Any
) -> np.ndarray[Any, Any]:
    places = np.full(tuple(size), storage_offset or 0, np.int64)
    for axis, (count, step) in enumerate(zip(size, stride, strict=True)):
        shape = [1] * len(size)
        shape[axis] = count
        places += np.arange(count).reshape(shape) * step
    if places.size and places.max() >= math.prod(x.shape):
        raise CannotLowerError("places outside of the tensor")
    return places
