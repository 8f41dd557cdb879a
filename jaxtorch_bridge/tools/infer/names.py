"""Names for dimensions, guessed where nobody gave one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from .axes import Dimension
from .probe import Axis, Result

_LETTERS = "nmkpqrstuvwxyzabcdefghijl"


def name_dimensions(
    dimensions: Iterable[Dimension],
    given: Mapping[Axis, str],
    results: Iterable[Result],
    taken: Collection[str],
) -> tuple[dict[Axis, str], frozenset[str]]:
    """The name of each axis that has one, and which names were guessed.

    Args:
        dimensions: In the order of the inputs.
        given: Names that a person gave to axes.
        results: Of the function, in the example.
        taken: Names of parameters, which would confuse a reader.
    """
    names: dict[Axis, str] = {}
    guessed: set[str] = set()
    used = {*given.values(), *taken}
    leading = {result.sizes[0] for result in results if len(result.sizes) > 1}
    letters = iter([*_LETTERS, *(f"d{number}" for number in range(1000))])
    for dimension in dimensions:
        name = next((given[axis] for axis in dimension.axes if axis in given), None)
        if name is None:
            name = "batch"
            if not _is_batch(dimension, leading) or "batch" in used:
                name = next(letter for letter in letters if letter not in used)
            guessed.add(name)
            used.add(name)
        names.update(dict.fromkeys(dimension.axes, name))
    return names, frozenset(guessed)


def _is_batch(dimension: Dimension, leading: set[int]) -> bool:
    """Whether it leads an input and a result, and is nowhere else."""
    return dimension.size in leading and all(axis == 0 for _, axis in dimension.axes)
