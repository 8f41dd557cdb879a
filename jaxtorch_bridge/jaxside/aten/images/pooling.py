"""Pooling and resizing of images with their channels first, with their backwards."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..registry import Out, computed_in, limits_of, lowers


def _each(value: Any, axes: int, default: Any = None) -> tuple[int, ...]:
    if value is None or (not isinstance(value, int) and not len(value)):
        value = default
    found = (value,) if isinstance(value, int) else tuple(value)
    return found * axes if len(found) == 1 else found


def _windows(
    x: Any,
    fill: Any,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Iterator[tuple[tuple[int, ...], Any]]:
    """For each place in the window, row by row, the elements that stand there in all windows."""
    axes = len(kernel)
    needed = [
        (count - 1) * step + (size - 1) * far + 1
        for count, step, size, far in zip(sizes, stride, kernel, dilation, strict=True)
    ]
    given = x.shape[-axes:]
    edges = [
        (pad, max(need - pad - size, 0), 0)
        for pad, need, size in zip(padding, needed, given, strict=True)
    ]
    wide = lax.pad(x, jnp.asarray(fill, x.dtype), [(0, 0, 0)] * (x.ndim - axes) + edges)
    for place in itertools.product(*map(range, kernel)):
        starts = [at * far for at, far in zip(place, dilation, strict=True)]
        where = tuple(
            slice(start, start + (count - 1) * step + 1, step)
            for start, count, step in zip(starts, sizes, stride, strict=True)
        )
        yield place, wide[(..., *where)]


def _max_pool(axes: int) -> None:
    def lower(
        outs: Sequence[Out],
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Any:
        kernel = _each(kernel_size, axes)
        step, pad, far = _each(stride, axes, kernel), _each(padding, axes), _each(dilation, axes)
        sizes, image = outs[0].shape[-axes:], x.shape[-axes:]
        places = np.arange(math.prod(image)).reshape(image)
        where = _windows(jnp.asarray(places), -1, sizes, kernel, step, pad, far)
        values = _windows(x, limits_of(x.dtype)[0], sizes, kernel, step, pad, far)
        best: Any = None
        for (_, here), (_, at) in zip(values, where, strict=True):
            if best is None:
                # Like what they are compared with, also on a mesh.
                best = jnp.full_like(here, limits_of(x.dtype)[0])
                index = jnp.full_like(here, -1, jnp.int64)
            inside, at = at >= 0, at + jnp.zeros_like(index)
            # The first of equals, and the last NaN, as torch goes through a window.
            better = inside & ((here > best) | jnp.isnan(here) | (index < 0))
            best, index = jnp.where(better, here, best), jnp.where(better, at, index)
        return best, index

    def back(
        out: Out,
        cotangent: Any,
        x: Any,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        ceil_mode: bool,
        indices: Any,
    ) -> Any:
        lead = x.shape[:-axes]
        flat = jnp.zeros((math.prod(lead), math.prod(x.shape[-axes:])), x.dtype)
        rows = np.arange(flat.shape[0])[:, None]
        places = indices.reshape(flat.shape[0], -1)
        return flat.at[rows, places].add(cotangent.reshape(places.shape)).reshape(x.shape)

    lowers(f"max_pool{axes}d_with_indices.default")(lower)
    lowers(f"max_pool{axes}d_with_indices_backward.default")(back)


def _avg_pool(axes: int) -> None:
    def pooled(
        x: Any,
        sizes: Sequence[int],
        kernel_size: Any,
        stride: Any,
        padding: Any,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Any:
        kernel = _each(kernel_size, axes)
        step, pad = _each(stride, axes, kernel), _each(padding, axes)
        far, image = (1,) * axes, x.shape[-axes:]
        total = sum(here for _, here in _windows(x, 0, sizes, kernel, step, pad, far))
        if divisor_override is not None:
            return total / divisor_override
        counts = np.ones(())
        for size, count, wide, by, edge in zip(image, sizes, kernel, step, pad, strict=True):
            starts = np.arange(count) * by - edge
            ends = np.minimum(starts + wide, size + edge)
            if not count_include_pad:
                starts, ends = np.maximum(starts, 0), np.minimum(ends, size)
            counts = counts[..., None] * (ends - starts)
        return total / jnp.asarray(counts, total.dtype)

    def lower(
        out: Out,
        x: Any,
        kernel_size: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Any:
        rest = (kernel_size, stride, padding, count_include_pad, divisor_override)
        wide = computed_in(x.dtype)
        return pooled(x.astype(wide), out.shape[-axes:], *rest).astype(out.dtype)

    def back(
        out: Out,
        cotangent: Any,
        x: Any,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        ceil_mode: bool,
        count_include_pad: bool,
        divisor_override: int | None,
    ) -> Any:
        from jax import linear_transpose

        rest = (kernel_size, stride, padding, count_include_pad, divisor_override)
        wide = computed_in(x.dtype)
        # It is linear.
        (found,) = linear_transpose(
            lambda x: pooled(x, cotangent.shape[-axes:], *rest), x.astype(wide)
        )(cotangent.astype(wide))
        return found.astype(out.dtype)

    lowers(f"avg_pool{axes}d.default")(lower)
    lowers(f"avg_pool{axes}d_backward.default")(back)


for _axes in (1, 2, 3):
    _avg_pool(_axes)
for _axes in (2, 3):
    _max_pool(_axes)


def _adaptive(axes: int) -> None:
    def means(x: Any, sizes: Sequence[int]) -> Any:
        """By a matrix of means along each axis."""
        for axis, count in enumerate(sizes, start=x.ndim - axes):
            size = x.shape[axis]
            weights = np.zeros((count, size))
            for at in range(count):
                start, end = at * size // count, -(-(at + 1) * size // count)
                weights[at, start:end] = 1 / (end - start)
            x = jnp.moveaxis(
                jnp.tensordot(
                    jnp.moveaxis(x, axis, -1),
                    jnp.asarray(weights.T, x.dtype),
                    1,
                    precision=lax.Precision.HIGHEST,
                ),
                -1,
                axis,
            )
        return x

    def lower(out: Out, x: Any, size: Sequence[int]) -> Any:
        return means(x, out.shape[-axes:]).astype(out.dtype)

    def back(out: Out, cotangent: Any, x: Any) -> Any:
        from jax import linear_transpose

        (found,) = linear_transpose(lambda x: means(x, cotangent.shape[-axes:]), x)(cotangent)
        return found.astype(out.dtype)

    lowers(f"_adaptive_avg_pool{axes}d.default")(lower)
    lowers(f"_adaptive_avg_pool{axes}d_backward.default")(back)


_adaptive(2)
_adaptive(3)


def _adaptive_max(axes: int) -> None:
    def lower(outs: Sequence[Out], x: Any, size: Sequence[int]) -> Any:
        lead, image = x.shape[:-axes], x.shape[-axes:]
        where = np.arange(math.prod(image)).reshape(image)
        for axis, (count, wide) in enumerate(zip(outs[0].shape[-axes:], image, strict=True)):
            at = np.arange(count)
            starts, ends = at * wide // count, -(-(at + 1) * wide // count)
            width = (ends - starts).max(initial=1)
            # Windows are of several sizes, and the last place of the smaller ones stands twice.
            places = np.minimum(starts[:, None] + np.arange(width), ends[:, None] - 1)
            where = np.take(where, places, axis=2 * axis)
        order = (*range(0, 2 * axes, 2), *range(1, 2 * axes, 2))
        where = where.transpose(order).reshape(*outs[0].shape[-axes:], -1)
        windows = x.reshape(*lead, -1)[..., where]
        best = jnp.argmax(windows, axis=-1, keepdims=True)
        if jnp.issubdtype(x.dtype, jnp.floating):
            # The last NaN, as torch goes through a window.
            bad = jnp.isnan(windows)
            last = where.shape[-1] - 1 - jnp.argmax(bad[..., ::-1], axis=-1, keepdims=True)
            best = jnp.where(bad.any(axis=-1, keepdims=True), last, best)
        index = jnp.take_along_axis(jnp.broadcast_to(where, windows.shape), best, axis=-1)
        values = jnp.take_along_axis(windows, best, axis=-1)
        return values[..., 0], index[..., 0].astype(jnp.int64)

    def back(out: Out, cotangent: Any, x: Any, indices: Any) -> Any:
        rows = math.prod(x.shape[:-axes])
        places = indices.reshape(rows, math.prod(indices.shape[-axes:]))
        flat = jnp.zeros((rows, math.prod(x.shape[-axes:])), x.dtype)
        at = np.arange(rows)[:, None]
        return flat.at[at, places].add(cotangent.reshape(places.shape)).reshape(x.shape)

    lowers(f"adaptive_max_pool{axes}d.default")(lower)
    lowers(f"adaptive_max_pool{axes}d_backward.default")(back)


_adaptive_max(2)
_adaptive_max(3)
