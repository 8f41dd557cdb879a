"""Images read at places that an array says, and the gradients by both; channels come first.

The last axis of a grid counts backwards: its first number is a place along the last axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from .registry import CannotLowerError, Out, computed_in, lowers

_BILINEAR, _NEAREST, _BICUBIC = 0, 1, 2
_ZEROS, _BORDER, _REFLECTION = 0, 1, 2


class _Place(NamedTuple):
    """Where to read along one axis, and how that moves with the number in the grid."""

    at: Any
    slope: Any


class _Tap(NamedTuple):
    """Elements along one axis, their weights, and how these move with the place."""

    index: Any
    weight: Any
    slope: Any


def _unfolded(x: Any, size: int, align: bool) -> _Place:
    """From -1 to 1 over all of the axis; without ``align`` to the edges of its elements."""
    if align:
        return _Place((x + 1) / 2 * (size - 1), jnp.full_like(x, (size - 1) / 2))
    return _Place(((x + 1) * size - 1) / 2, jnp.full_like(x, size / 2))


def _within(place: _Place, size: int, padding: int, align: bool) -> _Place:
    """Brought back into the image, if that is what happens outside."""
    if padding == _REFLECTION:
        place = _reflected(place, *((0, 2 * (size - 1)) if align else (-1, 2 * size - 1)))
    if padding != _ZEROS:
        # At the border itself nothing moves.
        moves = (place.at > 0) & (place.at < size - 1)
        place = _Place(jnp.clip(place.at, 0, size - 1), jnp.where(moves, place.slope, 0))
    # As torch has it: somewhere outside.
    return place._replace(at=jnp.where(jnp.isfinite(place.at), place.at, -100))


def _reflected(place: _Place, twice_low: int, twice_high: int) -> _Place:
    if twice_low == twice_high:
        return _Place(jnp.zeros_like(place.at), jnp.zeros_like(place.slope))
    low, span = twice_low / 2, (twice_high - twice_low) / 2
    apart = place.at - low
    slope = jnp.where(apart < 0, -place.slope, place.slope)
    apart = jnp.abs(apart)
    extra, flips = jnp.fmod(apart, span), jnp.floor(apart / span)
    is_even = jnp.fmod(flips, 2) == 0
    at = jnp.where(is_even, extra + low, span - extra + low)
    return _Place(at, jnp.where(is_even, slope, -slope))


def _taps(x: Any, size: int, mode: int, padding: int, align: bool) -> list[_Tap]:
    """Of one axis."""
    place = _unfolded(x, size, align)
    if mode == _BICUBIC:
        return _cubic(place, size, padding, align)
    at, slope = _within(place, size, padding, align)
    if mode == _NEAREST:
        return [_Tap(jnp.round(at), jnp.ones_like(at), jnp.zeros_like(at))]
    first = jnp.floor(at)
    return [
        _Tap(first, first + 1 - at, -slope),
        _Tap(first + 1, at - first, slope),
    ]


def _cubic(place: _Place, size: int, padding: int, align: bool) -> list[_Tap]:
    first = jnp.floor(place.at)
    share = place.at - first
    found = []
    for offset in (-1, 0, 1, 2):
        apart = jnp.abs(share - offset)
        # Whether the weight grows with the distance or with the place.
        side = jnp.where(share >= offset, 1, -1)
        if offset in (0, 1):
            weight = (1.25 * apart - 2.25) * apart * apart + 1
            slope = (3.75 * apart - 4.5) * apart
        else:
            weight = ((-0.75 * apart + 3.75) * apart - 6) * apart + 3
            slope = (-2.25 * apart + 7.5) * apart - 6
        # Elements are brought back into the image one by one.
        index = _within(_Place(first + offset, place.slope), size, padding, align).at
        found.append(_Tap(index, weight, slope * side * place.slope))
    return found


def _corners(
    grid: Any, image: Sequence[int], mode: int, padding: int, align: bool
) -> Iterator[tuple[tuple[Any, ...], Any, tuple[_Tap, ...]]]:
    """Of all taps of all axes: where they are, whether inside, and the taps."""
    axes = len(image)
    each = [
        _taps(grid[..., axes - 1 - axis], image[axis], mode, padding, align) for axis in range(axes)
    ]
    batch = jnp.arange(grid.shape[0]).reshape(-1, *[1] * (grid.ndim - 2))
    for taps in itertools.product(*each):
        inside, where = jnp.ones(grid.shape[:-1], bool), [batch]
        for tap, size in zip(taps, image, strict=True):
            inside = inside & (tap.index >= 0) & (tap.index < size)
            where.append(jnp.clip(tap.index, 0, size - 1).astype(jnp.int64))
        yield tuple(where), inside[..., None], taps


def _weight(taps: Sequence[_Tap], without: int = -1) -> Any:
    """The product of the weights; of one axis, how it moves."""
    factors = [tap.slope if axis == without else tap.weight for axis, tap in enumerate(taps)]
    return math.prod(factors)[..., None]


def _wide(x: Any) -> Any:
    return x.astype(computed_in(x.dtype))


def _sampler(axes: int) -> None:
    def lower(out: Out, x: Any, grid: Any, mode: int, padding: int, align_corners: bool) -> Any:
        _check(axes, mode)
        last = _wide(jnp.moveaxis(x, 1, -1))
        found = jnp.zeros((*grid.shape[:-1], x.shape[1]), last.dtype)
        if 0 not in x.shape[2:]:
            corners = _corners(_wide(grid), x.shape[2:], mode, padding, align_corners)
            for where, inside, taps in corners:
                found = found + jnp.where(inside, last[where] * _weight(taps), 0)
        return jnp.moveaxis(found, -1, 1).astype(out.dtype)

    def back(
        outs: Sequence[Out],
        cotangent: Any,
        x: Any,
        grid: Any,
        mode: int,
        padding: int,
        align_corners: bool,
        output_mask: Sequence[bool],
    ) -> Any:
        _check(axes, mode)
        last = _wide(jnp.moveaxis(x, 1, -1))
        share = _wide(jnp.moveaxis(cotangent, 1, -1))
        by_x = jnp.zeros(last.shape, last.dtype)
        by_grid = [jnp.zeros(grid.shape[:-1], last.dtype) for _ in range(axes)]
        corners = _corners(_wide(grid), x.shape[2:], mode, padding, align_corners)
        for where, inside, taps in corners:
            by_x = by_x.at[where].add(jnp.where(inside, share * _weight(taps), 0))
            product = jnp.where(inside, last[where] * share, 0).sum(axis=-1, keepdims=True)
            for axis in range(axes):
                moved = (product * _weight(taps, axis))[..., 0]
                by_grid[axis] = by_grid[axis] + moved
        found = [jnp.moveaxis(by_x, -1, 1), jnp.stack(by_grid[::-1], axis=-1)]
        return [
            one.astype(sig.dtype) if wanted else None
            for one, sig, wanted in zip(found, outs, output_mask, strict=True)
        ]

    lowers(f"grid_sampler_{axes}d.default")(lower)
    lowers(f"grid_sampler_{axes}d_backward.default")(back)


def _check(axes: int, mode: int) -> None:
    if mode == _BICUBIC and axes != 2:
        raise CannotLowerError("cubic interpolation of volumes")


_sampler(2)
_sampler(3)
