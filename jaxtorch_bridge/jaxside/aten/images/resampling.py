"""Gradients of resized and padded images, and resizing without aliases; channels come first.

Each axis by itself: which elements of the image a place is made of, and with which weights.
They are computed in the dtype that torch takes for them, since a place may lie on an edge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..registry import Out, computed_in, lowers

Array = np.ndarray[Any, Any]


class _Taps(NamedTuple):
    """Of each place of a result, the elements, and their weights, a column for each."""

    places: Array
    weights: Array


_Kernel = Callable[[int, int, bool, Any, Any], _Taps]
"""Of the sizes before and after, whether corners are aligned, a scale, and a dtype."""


def _step(size: int, count: int, align: bool, scale: Any, dtype: Any) -> Any:
    if align:
        return dtype(size - 1) / dtype(count - 1) if count > 1 else dtype(0)
    if scale is not None and scale > 0:
        return dtype(1 / scale)
    return dtype(size) / dtype(count)


def _positions(size: int, count: int, align: bool, scale: Any, dtype: Any) -> Any:
    at, step = np.arange(count, dtype=dtype), _step(size, count, align, scale, dtype)
    half = dtype(0.5)
    return at * step if align else (at + half) * step - half


def _nearest(offset: float) -> _Kernel:
    def taps(size: int, count: int, align: bool, scale: Any, dtype: Any) -> _Taps:
        # Always in float32.
        at = np.arange(count, dtype=np.float32) + np.float32(offset)
        places = np.floor(at * _step(size, count, False, scale, np.float32)).astype(np.int64)
        return _Taps(np.minimum(places, size - 1)[:, None], np.ones((count, 1)))

    return taps


def _linear(size: int, count: int, align: bool, scale: Any, dtype: Any) -> _Taps:
    at = np.maximum(_positions(size, count, align, scale, dtype), 0)
    first = np.minimum(at.astype(np.int64), size - 1)
    share = np.clip(at - first.astype(dtype), 0, 1)
    places = np.stack([first, np.minimum(first + 1, size - 1)], axis=1)
    return _Taps(places, np.stack([1 - share, share], axis=1))


def _cubic_weight(x: Array, a: float) -> Array:
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def _cubic(size: int, count: int, align: bool, scale: Any, dtype: Any) -> _Taps:
    at = _positions(size, count, align, scale, dtype)
    first = np.floor(at)
    offsets = np.arange(-1, 3)
    places = np.clip(first.astype(np.int64)[:, None] + offsets, 0, size - 1)
    return _Taps(places, _cubic_weight((at - first)[:, None] - offsets, -0.75))


def _smoothed(weight: Callable[[Array], Array], width: int) -> _Kernel:
    """Without aliases: of a smaller image, each place is made of more elements."""

    def taps(size: int, count: int, align: bool, scale: Any, dtype: Any) -> _Taps:
        step = np.float64(_step(size, count, align, scale, dtype))
        wide = max(step, 1.0)
        reach = width / 2 * wide
        centre = step * (np.arange(count) + 0.5)
        start = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
        end = np.minimum((centre + reach + 0.5).astype(np.int64), size)
        places = start[:, None] + np.arange((end - start).max(initial=1))
        weights = weight((places - centre[:, None] + 0.5) / wide)
        weights = np.where(places < end[:, None], weights, 0)
        weights /= weights.sum(axis=1, keepdims=True)
        return _Taps(np.minimum(places, end[:, None] - 1), weights)

    return taps


def _transposed(x: Any, axis: int, size: int, taps: _Taps) -> Any:
    """From the places of a result to the elements that they are made of."""
    found = jnp.zeros((*x.shape[:axis], size, *x.shape[axis + 1 :]), x.dtype)
    where = (*(slice(None),) * axis, taps.places)
    return found.at[where].add(jnp.expand_dims(x, axis + 1) * _behind(taps.weights, axis, x))


def _applied(x: Any, axis: int, taps: _Taps) -> Any:
    read = jnp.take(x, jnp.asarray(taps.places), axis=axis)
    share = _behind(taps.weights, axis, x)
    # What has no weight does not count, also if it is infinite.
    return jnp.where(share != 0, read * share, 0).sum(axis=axis + 1)


def _behind(weights: Array, axis: int, x: Any) -> Any:
    return jnp.asarray(weights.reshape(*weights.shape, *[1] * (x.ndim - axis - 1)), x.dtype)


def _resized_back(name: str, axes: int, kernel: _Kernel, *, aligns: bool) -> None:
    def lower(
        out: Out, cotangent: Any, output_size: Sequence[int], input_size: Sequence[int], *rest: Any
    ) -> Any:
        align, *given = rest if aligns else (False, *rest)
        scales = [*given, *[None] * (axes - len(given))]
        found = cotangent.astype(computed_in(cotangent.dtype))
        for axis in range(2, 2 + axes):
            size, count = input_size[axis], cotangent.shape[axis]
            taps = kernel(size, count, align, scales[axis - 2], found.dtype.type)
            found = _transposed(found, axis, size, taps)
        return found.astype(out.dtype)

    lowers(f"{name}_backward.default")(lower)


def _resized(name: str, kernel: _Kernel) -> None:
    def lower(
        out: Out,
        x: Any,
        output_size: Sequence[int],
        align_corners: bool,
        scales_h: Any = None,
        scales_w: Any = None,
    ) -> Any:
        found = x.astype(computed_in(x.dtype))
        for axis, scale in ((2, scales_h), (3, scales_w)):
            taps = kernel(x.shape[axis], out.shape[axis], align_corners, scale, found.dtype.type)
            found = _applied(found, axis, taps)
        return found.astype(out.dtype)

    lowers(f"{name}.default")(lower)


for _axes in (1, 2, 3):
    _resized_back(f"upsample_nearest{_axes}d", _axes, _nearest(0), aligns=False)
    _resized_back(f"_upsample_nearest_exact{_axes}d", _axes, _nearest(0.5), aligns=False)
_resized_back("upsample_linear1d", 1, _linear, aligns=True)
_resized_back("upsample_bilinear2d", 2, _linear, aligns=True)
_resized_back("upsample_trilinear3d", 3, _linear, aligns=True)
_resized_back("upsample_bicubic2d", 2, _cubic, aligns=True)
_smooth_linear = _smoothed(lambda x: np.maximum(1 - np.abs(x), 0), 2)
_smooth_cubic = _smoothed(lambda x: _cubic_weight(x, -0.5), 4)
for _name, _kernel in (("bilinear", _smooth_linear), ("bicubic", _smooth_cubic)):
    _resized(f"_upsample_{_name}2d_aa", _kernel)
    _resized_back(f"_upsample_{_name}2d_aa", 2, _kernel, aligns=True)


def _replicated_back(axes: int) -> None:
    def lower(out: Out, cotangent: Any, x: Any, padding: Sequence[int]) -> Any:
        found = cotangent.astype(computed_in(cotangent.dtype))
        for number in range(axes):
            axis = x.ndim - 1 - number
            size, count = x.shape[axis], found.shape[axis]
            places = np.clip(np.arange(count) - padding[2 * number], 0, size - 1)
            taps = _Taps(places[:, None], np.ones((count, 1)))
            found = _transposed(found, axis, size, taps)
        return found.astype(out.dtype)

    lowers(f"replication_pad{axes}d_backward.default")(lower)


for _axes in (1, 2, 3):
    _replicated_back(_axes)
