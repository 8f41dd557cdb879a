"""Sizes that can be changed one by one, but not all at once.

A function may take another path at other sizes. Fused attention, say, asks for keys and values of
one length only where it is not fused, which one changed size alone does not show.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from .axes import Dimension, Grouping
from .probe import Probe

# Each try is one evaluation.
_MOST_DIMENSIONS = 16
_MOST_TRIES = 200
_FACTORS = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)

_Sets = list[tuple[Dimension, ...]]


def joined(probe: Probe, grouping: Grouping) -> Grouping:
    """The grouping with dimensions made one where all different sizes at once do not work.

    Only such as are equal in the example are joined, and as few as that takes.
    """
    dimensions = grouping.dimensions
    # What runs for real would need the memory of the larger sizes.
    if probe.runs or len(dimensions) > _MOST_DIMENSIONS:
        return grouping
    apart: _Sets = [(one,) for one in dimensions]
    by_size: dict[int, list[Dimension]] = {}
    for one in dimensions:
        by_size.setdefault(one.size, []).append(one)
    sets: _Sets = [tuple(some) for some in by_size.values()]
    # Nothing to join, nothing wrong with them apart, or no help in joining them.
    if len(sets) == len(apart) or _work(probe, grouping, apart) or not _work(probe, grouping, sets):
        return grouping
    for number, part in enumerate(_parts(sets)):
        if number > _MOST_TRIES:
            break
        split = _without(sets, part)
        if split is not None and _work(probe, grouping, split):
            sets[:] = split
    return Grouping(_dimensions(probe, sets), grouping.multiples, grouping.fixed)


def _work(probe: Probe, grouping: Grouping, sets: Sequence[tuple[Dimension, ...]]) -> bool:
    """Whether the function works with another multiple of its size for each set."""
    changed = {
        axis: one.size * factor
        for factor, some in zip(_FACTORS, sets, strict=False)
        for one in some
        for axis in one.axes
    }
    for multiple in grouping.multiples:
        changed[multiple.axis] = multiple.factor * changed[multiple.base]
    return probe.works(changed)


def _parts(sets: _Sets) -> Iterator[tuple[Dimension, ...]]:
    """What may leave its set, the smallest parts first."""
    whole = [some for some in sets if len(some) > 1]
    for count in (1, 2, 3):
        for some in whole:
            if math.comb(len(some), count) <= _MOST_TRIES:
                yield from itertools.combinations(some, count)


def _without(sets: _Sets, part: tuple[Dimension, ...]) -> _Sets | None:
    """The sets with ``part`` as one of its own; None if that is what it is, or if it is torn."""
    for index, some in enumerate(sets):
        if len(some) > len(part) and all(one in some for one in part):
            rest = tuple(one for one in some if one not in part)
            return [*sets[:index], rest, *sets[index + 1 :], part]
    return None


def _dimensions(probe: Probe, sets: _Sets) -> tuple[Dimension, ...]:
    order = list(probe.sizes)
    found = []
    for some in sets:
        axes = sorted((axis for one in some for axis in one.axes), key=order.index)
        found.append(Dimension(some[0].size, tuple(axes), all(one.tried for one in some)))
    return tuple(sorted(found, key=lambda one: order.index(one.axes[0])))
