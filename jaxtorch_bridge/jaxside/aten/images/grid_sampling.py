"""Images read at places that an array says, and the gradients by both; channels come first.

The last axis of a grid counts backwards: its first number is a place along the last axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from ..batches import first_axis, lowers_batches
from ..registry import CannotLowerError, Out, computed_in

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
    return [_Tap(first, first + 1 - at, -slope), _Tap(first + 1, at - first, slope)]


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


class _Corners(NamedTuple):
    """All elements that are read: behind the places in a grid, an axis for the taps of each."""

    where: tuple[Any, ...]
    inside: Any
    taps: tuple[_Tap, ...]

    def weight(self, without: int = -1) -> Any:
        """The product of the weights; of one axis, how it moves."""
        return math.prod(
            tap.slope if axis == without else tap.weight for axis, tap in enumerate(self.taps)
        )

    def counted(self, values: Any) -> Any:
        """Noughts for what is outside."""
        return jnp.where(self.inside[..., None], values, 0)


def _corners(grid: Any, image: Sequence[int], mode: int, padding: int, align: bool) -> _Corners:
    axes, lead = len(image), grid.shape[:-1]
    found = []
    for axis, size in enumerate(image):
        taps = _taps(grid[..., axes - 1 - axis], size, mode, padding, align)
        shape = [*lead, *(len(taps) if other == axis else 1 for other in range(axes))]
        parts = [jnp.stack(part, axis=-1).reshape(shape) for part in zip(*taps, strict=True)]
        found.append(_Tap(*parts))
    inside: Any = True
    where = [jnp.arange(lead[0]).reshape(-1, *[1] * (len(lead) - 1 + axes))]
    for tap, size in zip(found, image, strict=True):
        inside = inside & (tap.index >= 0) & (tap.index < size)
        where.append(jnp.clip(tap.index, 0, size - 1).astype(jnp.int64))
    return _Corners(tuple(where), inside, tuple(found))


def _wide(x: Any) -> Any:
    return x.astype(computed_in(x.dtype))


def _sampler(axes: int) -> None:
    # Those of the taps, where those of batch and grid are in front.
    behind = tuple(range(1 + axes, 1 + 2 * axes))

    def lower(out: Out, x: Any, grid: Any, mode: int, padding: int, align_corners: bool) -> Any:
        _check(axes, mode)
        if 0 in x.shape[2:]:
            return jnp.zeros(out.shape, out.dtype)
        last = _wide(jnp.moveaxis(x, 1, -1))
        corners = _corners(_wide(grid), x.shape[2:], mode, padding, align_corners)
        read = last[corners.where] * corners.weight()[..., None]
        return jnp.moveaxis(corners.counted(read).sum(behind), -1, 1).astype(out.dtype)

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
        share = jnp.expand_dims(_wide(jnp.moveaxis(cotangent, 1, -1)), behind)
        corners = _corners(_wide(grid), x.shape[2:], mode, padding, align_corners)
        found: list[Any] = [None, None]
        if output_mask[0]:
            added = corners.counted(share * corners.weight()[..., None])
            by_x = jnp.zeros(last.shape, last.dtype).at[corners.where].add(added)
            found[0] = jnp.moveaxis(by_x, -1, 1).astype(outs[0].dtype)
        if output_mask[1]:
            product = corners.counted(last[corners.where] * share).sum(axis=-1)
            moved = [(product * corners.weight(axis)).sum(behind) for axis in range(axes)]
            found[1] = jnp.stack(moved[::-1], axis=-1).astype(outs[1].dtype)
        return found

    lowers_batches(first_axis, f"grid_sampler_{axes}d.default")(lower)
    lowers_batches(first_axis, f"grid_sampler_{axes}d_backward.default")(back)


def _check(axes: int, mode: int) -> None:
    if mode == _BICUBIC and axes != 2:
        raise CannotLowerError("cubic interpolation of volumes")


_sampler(2)
_sampler(3)
