"""Which axes of the inputs must have equal sizes: those that cannot be changed apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .probe import Axis, Probe

# Each try is one evaluation; in a tree of hundreds of arrays equal sizes are taken as one.
_MOST_AXES = 32
_MOST_SETS = 300


@dataclass(frozen=True)
class Dimension:
    """Axes that have one size.

    Attributes:
        size: In the example.
        axes: In the order of the inputs.
        tried: Whether it was seen that they cannot be changed apart, nor together with others.
    """

    size: int
    axes: tuple[Axis, ...]
    tried: bool = True


@dataclass(frozen=True)
class Multiple:
    """Axes whose size is a multiple of a dimension's.

    Attributes:
        axis: The axis.
        factor: Of that multiple.
        base: One of the dimension's axes.
    """

    axis: Axis
    factor: int
    base: Axis


@dataclass(frozen=True)
class Grouping:
    """What was found out about all axes.

    Attributes:
        dimensions: Sizes that can be changed.
        multiples: Sizes that follow from one of them.
        fixed: Axes at which the function takes no other size.
    """

    dimensions: tuple[Dimension, ...]
    multiples: tuple[Multiple, ...]
    fixed: tuple[Axis, ...]


def group_axes(probe: Probe) -> Grouping:
    """Group the axes by trying other sizes, from those that are equal in the example.

    Axes of size 1 stay fixed: as often as not such a size stands for broadcasting.
    """
    by_size: dict[int, list[Axis]] = {}
    for axis, size in probe.sizes.items():
        by_size.setdefault(size, []).append(axis)
    dimensions: list[Dimension] = []
    stuck: list[Axis] = []
    fixed = by_size.pop(1, []) + by_size.pop(0, [])
    for size, axes in by_size.items():
        if len(axes) > _MOST_AXES:
            dimensions.append(Dimension(size, tuple(axes), tried=False))
            continue
        rest = list(axes)
        # Sets that can change by themselves first, then whatever has to move with an axis.
        for together in _small_sets(probe, axes):
            dimensions.append(Dimension(size, together))
            rest = [axis for axis in rest if axis not in together]
        while rest:
            found = _must_move_with(probe, rest[0], rest)
            if found is None:
                stuck.append(rest.pop(0))
                continue
            dimensions.append(Dimension(size, found))
            rest = [axis for axis in rest if axis not in found]
    multiples = _multiples(probe, stuck, dimensions)
    moving = {axis for one in dimensions for axis in one.axes}
    moving |= {one.axis for one in multiples}
    fixed += [axis for axis in stuck if axis not in moving]
    order = list(probe.sizes)
    dimensions.sort(key=lambda one: order.index(one.axes[0]))
    return Grouping(tuple(dimensions), multiples, tuple(fixed))


def _small_sets(probe: Probe, axes: list[Axis]) -> Iterator[tuple[Axis, ...]]:
    """Sets of one, two or three axes that can change by themselves, the smallest first.

    Two pairs of one size would else pass for one dimension: changing all four works, and leaving
    any one of them out does not.
    """
    rest = list(axes)
    for count in (1, 2, 3):
        if math.comb(len(rest), count) > _MOST_SETS:
            return
        for some in itertools.combinations(tuple(rest), count):
            free = all(axis in rest for axis in some)
            if free and _moves(probe, some, probe.sizes[some[0]]):
                yield some
                rest = [axis for axis in rest if axis not in some]


def _must_move_with(probe: Probe, axis: Axis, axes: list[Axis]) -> tuple[Axis, ...] | None:
    """The fewest of ``axes`` that have to change for ``axis`` to change; None if none do."""
    size = probe.sizes[axis]
    # Not even with all of its size: it may be a multiple, or fixed.
    if not _moves(probe, axes, size):
        return None
    together = list(axes)
    for other in axes:
        fewer = [one for one in together if one != other]
        if other != axis and _moves(probe, fewer, size):
            together = fewer
    return tuple(together)


def _moves(probe: Probe, axes: Iterable[Axis], size: int) -> bool:
    # Multiples, for functions that need an even size.
    return any(probe.works(dict.fromkeys(axes, other)) for other in (2 * size, 3 * size))


def _multiples(
    probe: Probe, stuck: list[Axis], dimensions: list[Dimension]
) -> tuple[Multiple, ...]:
    """Stuck sizes that are multiples of other stuck sizes, as in a layer of three projections.

    Adds the dimensions that this finds.
    """
    found: list[Multiple] = []
    # The largest first: a multiple is larger than what it is a multiple of.
    for axis in sorted(stuck, key=lambda one: -probe.sizes[one]):
        taken = {one for dimension in dimensions for one in dimension.axes}
        size = probe.sizes[axis]
        for base in dict.fromkeys(probe.sizes[one] for one in stuck):
            others = [one for one in stuck if probe.sizes[one] == base and one not in taken]
            if base >= size or size % base or not others or axis in taken:
                continue
            together = _fewest(probe, axis, others)
            if together:
                dimensions.append(Dimension(base, tuple(together)))
                found.append(Multiple(axis, size // base, together[0]))
                break
    return tuple(found)


def _fewest(probe: Probe, axis: Axis, others: list[Axis]) -> list[Axis]:
    def moves(axes: list[Axis]) -> bool:
        changed = {one: 2 * probe.sizes[one] for one in [*axes, axis]}
        return bool(axes) and probe.works(changed)

    if not moves(others):
        return []
    together = list(others)
    for other in others:
        fewer = [one for one in together if one != other]
        if moves(fewer):
            together = fewer
    return together
