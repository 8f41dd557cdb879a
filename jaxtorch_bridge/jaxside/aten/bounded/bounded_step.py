"""One operation on arrays of bounded sizes: what its lowering is given, and who has it.

Such an array is computed with the greatest size that it may have. Its elements come first along
each axis, and behind them, in the padding, stands anything: also NaN. An operation that makes one
element of many is given something neutral there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ....planner.aten_program import BoundedSize, Ref, ResultSig, Step
from ..registry import CannotLowerError, entered_in

Rule = Callable[["BoundedStep"], Any]
_RULES: dict[str, Rule] = {}


def bounded(*names: str) -> Callable[[Rule], Rule]:
    """Enter what lowers operations, with their overloads, where sizes are bounded."""
    return entered_in(_RULES, names)


def rule_of(step: Step) -> Rule:
    """What lowers an operation where sizes are bounded.

    Raises:
        CannotLowerError: Nothing does.
    """
    found = _RULES.get("pointwise" if step.pointwise else step.op)
    if found is None:
        raise CannotLowerError(f"{step.words}: it is given sizes that follow from values")
    return found


class Counts:
    """What has been counted while a program is lowered.

    Args:
        alike: For arrays that are computed like an earlier one, which that is.

    Attributes:
        found: By number.
    """

    def __init__(self, alike: Mapping[int, int]) -> None:
        self.found: dict[int, Any] = {}
        self._alike = alike
        self._of_masks: dict[int, BoundedSize] = {}

    def note_mask(self, array: int, size: BoundedSize) -> None:
        """Say which count is that of a mask's places."""
        self._of_masks[self._alike.get(array, array)] = size

    def of_mask(self, array: int) -> BoundedSize | None:
        """The count of a mask's places; None if no size is made of it."""
        return self._of_masks.get(self._alike.get(array, array))


class BoundedStep:
    """An operation and its arguments.

    Attributes:
        step: The operation.
        args: By the schema: arrays, plain values, `BoundedSize`, tuples. A rule may change them.
        sigs: In the places of arrays what torch says of them; None in the others.
        kwargs: By name.
        results: What torch says of the results.
    """

    def __init__(
        self,
        step: Step,
        args: list[Any],
        kwargs: dict[str, Any],
        sig_of: Callable[[int], ResultSig],
        counts: Counts,
        plain: Callable[[Sequence[Any], dict[str, Any]], Any],
    ) -> None:
        self.step = step
        self.args = args
        self.sigs = [sigs_of(one, sig_of) for one in step.args]
        self.kwargs = kwargs
        self.results = step.results
        self._counts = counts
        self._plain = plain
        # Rules look at what is given by place.
        if any(_says_bounded(sigs_of(one, sig_of)) for _, one in step.kwargs):
            raise self.refuse("an array of a size that follows from values is given by name")

    def plain(self, *, sizes: bool = False) -> Any:
        """What the ordinary lowering gives of the arguments.

        Args:
            sizes: Arguments may be sizes of results, which are then what they are at most. A number
                that an operation computes with must be what it is.

        Raises:
            CannotLowerError: There is such a number.
        """
        if not sizes and any(map(_says_bounded, (*self.args, *self.kwargs.values()))):
            raise self.refuse("it is given a number that follows from values")
        return self._plain(
            [_at_most(one) for one in self.args],
            {name: _at_most(one) for name, one in self.kwargs.items()},
        )

    def refuse(self, why: str) -> CannotLowerError:
        """An error that says why this cannot be done."""
        return CannotLowerError(f"{self.step.words}: {why}")

    def value(self, size: BoundedSize | int) -> Any:
        """What a size really is, as int64."""
        if isinstance(size, int):
            return jnp.asarray(size, jnp.int64)
        total = jnp.zeros((), jnp.int64)
        for factor, numbers in size.terms:
            product = jnp.asarray(factor, jnp.int64)
            for number in numbers:
                product = product * self._counts.found[number]
            total = total + product
        return total

    def counts(self, size: BoundedSize | None, count: Any) -> None:
        """Say what a count is that this operation makes."""
        assert size is not None
        (number,) = size.counts
        self.set_count(number, count)

    def set_count(self, number: int, count: Any) -> None:
        """The same, by its number."""
        self._counts.found.setdefault(number, count.astype(jnp.int64))

    def counts_mask(self, ref: Any, size: BoundedSize) -> None:
        """Say which count is that of a mask's places."""
        self._counts.note_mask(ref.index, size)

    def count_of(self, ref: Any) -> BoundedSize | None:
        """The count of a mask's places; None if no size is made of it."""
        return self._counts.of_mask(ref.index)

    def arrays(self) -> Iterator[tuple[int, ResultSig]]:
        """The places of arguments that are arrays."""
        for place, sig in enumerate(self.sigs):
            if isinstance(sig, ResultSig):
                yield place, sig

    def filled(self, array: Any, sig: ResultSig, fill: Any) -> Any:
        """An array with something neutral in the padding."""
        inside = self.inside(sig)
        return array if inside is None else jnp.where(inside, array, jnp.asarray(fill, array.dtype))

    def fill(self, fill: Any, *places: int) -> None:
        """The same for arguments; for all that are arrays if none is named."""
        for place, sig in list(self.arrays()):
            if not places or place in places:
                self.args[place] = self.filled(self.args[place], sig, fill)

    def inside(self, sig: ResultSig) -> Any:
        """Which elements are no padding, with an axis for each of the array's; None for all."""
        found = None
        for axis, size in enumerate(sig.bounded):
            if size is not None:
                places = jax.lax.broadcasted_iota(jnp.int64, _along(sig, axis), axis)
                here = places < self.value(size)
                found = here if found is None else found & here
        return found


def is_bounded(step: Step, sig_of: Callable[[int], ResultSig]) -> bool:
    """Whether anything about an operation follows from values."""
    if any(sig.bounded for sig in step.results):
        return True
    given = (*step.args, *(value for _, value in step.kwargs))
    return any(map(_says_bounded, (*given, *(sigs_of(one, sig_of) for one in given))))


def _says_bounded(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_says_bounded, value))
    return isinstance(value, BoundedSize) or (isinstance(value, ResultSig) and bool(value.bounded))


def sigs_of(value: Any, sig_of: Callable[[int], ResultSig]) -> Any:
    """What torch says of the arrays among arguments, in their places."""
    if isinstance(value, Ref):
        return sig_of(value.index)
    if isinstance(value, tuple):
        return tuple(map(functools.partial(sigs_of, sig_of=sig_of), value))
    return None


def axis_of(dim: int, sig: ResultSig) -> int:
    """An axis, counted from the front."""
    return dim % max(len(sig.shape), 1)


def sizes_of(sig: ResultSig) -> tuple[BoundedSize | int, ...]:
    """The sizes of an array, bounded ones as what they are."""
    if not sig.bounded:
        return sig.shape
    return tuple(
        size if bound is None else bound for size, bound in zip(sig.shape, sig.bounded, strict=True)
    )


def bound_at(sig: ResultSig, axis: int) -> BoundedSize | None:
    """The size along an axis where it is bounded."""
    return sig.bounded[axis] if sig.bounded else None


def _along(sig: ResultSig, axis: int) -> tuple[int, ...]:
    return tuple(size if place == axis else 1 for place, size in enumerate(sig.shape))


def _at_most(value: Any) -> Any:
    if isinstance(value, BoundedSize):
        return value.most
    if isinstance(value, tuple):
        return tuple(map(_at_most, value))
    return value
