"""Sizes for the dimensions of a contract, such that all of its constraints hold.

A search with backtracking: names in the contract's order, for each a few sizes that are likely
to do. Constraints are checked as soon as all of their names have a size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from ...spec.language.constraints import Constraint
from ...spec.language.shapes import Name, Operation, Term, evaluate, names_in
from ...spec.language.size_algebra import numbers_in
from ...spec.model import CallableSpec

# More than the constraints of people need; small enough that a contradiction is told at once.
_MOST_STEPS = 20_000
_LARGEST_SIZE = 4096
_USUAL = (*range(1, 17), 24, 32, 48, 64, 96, 128, 256, 512, 1024)
_MULTIPLES = range(9)

Sizes = dict[str, int]


@dataclass(frozen=True)
class _Condition:
    names: frozenset[str]
    holds: Callable[[Sizes], bool]


class SizeSearch:
    """Finds sizes for one contract.

    Attributes:
        names: The dimensions of the inputs, in the contract's order.
    """

    def __init__(self, spec: CallableSpec) -> None:
        self._spec = spec
        shapes = [leaf.shape for _, leaf in spec.input_leaves()]
        plain = [one.name for shape in shapes for one in shape.dimensions if isinstance(one, Name)]
        self.names: tuple[str, ...] = tuple(dict.fromkeys(plain))
        self._conditions = tuple(self._conditions_of(spec))
        self._constants = tuple(sorted(set(self._constants_of(spec))))

    def find(
        self, preferred: Mapping[str, Sequence[int]], fixed: Mapping[str, int] | None = None
    ) -> Sizes | None:
        """Sizes for all names, or None if none were found.

        Args:
            preferred: Sizes to try first, for each name.
            fixed: Sizes that must be these.
        """
        # A list: one count for the whole search.
        steps = [_MOST_STEPS]
        return self._extend({}, preferred, dict(fixed or {}), steps)

    def fits(self, sizes: Sizes) -> bool:
        """Whether a call with these sizes meets the contract."""
        return all(one.holds(sizes) for one in self._conditions)

    def _extend(
        self,
        sizes: Sizes,
        preferred: Mapping[str, Sequence[int]],
        fixed: Sizes,
        steps: list[int],
    ) -> Sizes | None:
        if len(sizes) == len(self.names):
            return dict(sizes)
        name = self.names[len(sizes)]
        known = {*sizes, name}
        # Those that this name completes; earlier ones have been looked at.
        conditions = [one for one in self._conditions if name in one.names and one.names <= known]
        if name in fixed:
            candidates: Iterator[int] = iter((fixed[name],))
        else:
            candidates = self._candidates(name, sizes, preferred.get(name, ()))
        for size in dict.fromkeys(candidates):
            steps[0] -= 1
            if steps[0] < 0:
                return None
            sizes[name] = size
            if all(one.holds(sizes) for one in conditions):
                found = self._extend(sizes, preferred, fixed, steps)
                if found is not None:
                    return found
            del sizes[name]
        return None

    def _candidates(self, name: str, sizes: Sizes, preferred: Sequence[int]) -> Iterator[int]:
        found = [*preferred, *self._from_constraints(name, sizes), *self._constants, *_USUAL]
        return (size for size in found if 1 <= size <= _LARGEST_SIZE)

    def _from_constraints(self, name: str, sizes: Sizes) -> Iterator[int]:
        """Sizes that constraints over names with a size lead to."""
        for constraint in self._spec.constraints:
            for side, other in (
                (constraint.left, constraint.right),
                (constraint.right, constraint.left),
            ):
                target = _size(other, sizes)
                if target is None:
                    continue
                if side == Name(name):
                    yield from (target, target + 1, target - 1)
                elif isinstance(side, Operation) and side.left == Name(name):
                    step = _size(side.right, sizes)
                    if step is not None and side.operator == "%":
                        # `name % step == target`.
                        yield from (step * count + target for count in _MULTIPLES)
                    elif step is not None and side.operator == "//":
                        # `name // step == target`.
                        yield from (step * target, step * target + 1)
                    elif step and side.operator == "*":
                        yield target // step

    @staticmethod
    def _conditions_of(spec: CallableSpec) -> Iterator[_Condition]:
        for constraint in spec.constraints:
            yield _Condition(constraint.names, partial(_holds, constraint))
        bound = frozenset(
            name for _, leaf in spec.input_leaves() for name in leaf.shape.plain_names
        )
        # An array without elements is a call, too, but not one that shows much.
        for _, leaf in (*spec.input_leaves(), *spec.output_leaves()):
            for dimension in leaf.shape.dimensions:
                names = names_in(dimension)
                if isinstance(dimension, Operation) and names <= bound:
                    yield _Condition(names, partial(_is_size, dimension))

    @staticmethod
    def _constants_of(spec: CallableSpec) -> Iterator[int]:
        for constraint in spec.constraints:
            for term in (constraint.left, constraint.right):
                for constant in numbers_in(term):
                    yield from (constant - 1, constant, constant + 1, 2 * constant, 3 * constant)


def _holds(constraint: Constraint, sizes: Sizes) -> bool:
    try:
        return constraint.holds(sizes) is True
    except ZeroDivisionError:
        return False


def _is_size(term: Term, sizes: Sizes) -> bool:
    size = _size(term, sizes)
    return size is not None and size >= 1


def _size(term: Term, sizes: Sizes) -> int | None:
    try:
        return evaluate(term, sizes)
    except ZeroDivisionError:
        return None
