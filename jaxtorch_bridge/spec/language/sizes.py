"""Dimension names and the sizes they have in one call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from .problems import Path
from .shapes import Name, Rest, Shape, Size, Term, evaluate

SizeT = TypeVar("SizeT")
# A shape with None for sizes that nobody knows.
PartlyKnown: TypeAlias = "tuple[int | None, ...]"


@dataclass(frozen=True)
class Sizes:
    """What the names of a contract are in one call; equal and hashed by the sizes.

    Attributes:
        pairs: Dimension names with their sizes, in the order they were bound.
        ellipsis: The dimensions that ``...`` stands for, or None where nothing decided.
        origins: Where each name (and ``...``) was bound, for messages.
        dtypes: Path of each input of the call -> which of the contract's dtypes it has.
    """

    pairs: tuple[tuple[str, int], ...] = ()
    ellipsis: tuple[int, ...] | None = None
    origins: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    dtypes: tuple[tuple[Path, str], ...] = field(default=(), compare=False, repr=False)

    @property
    def named(self) -> dict[str, int]:
        """Dimension name -> size."""
        return dict(self.pairs)

    def __str__(self) -> str:
        rest = () if self.ellipsis is None else (("...", self.ellipsis),)
        return ", ".join(f"{name}={size}" for name, size in (*rest, *self.pairs))


class Clash(Exception):
    """A shape that does not agree with the sizes bound so far."""

    def __init__(self, expected: str, found: str) -> None:
        self.expected = expected
        self.found = found
        super().__init__(f"expected {expected}; got {found}")


class Binder:
    """Binds names to sizes, one array after the other."""

    def __init__(self, sizes: Sizes) -> None:
        self.named = sizes.named
        self._ellipsis = sizes.ellipsis
        self._origins = dict(sizes.origins)
        self._dtypes = sizes.dtypes

    @property
    def sizes(self) -> Sizes:
        """Everything bound so far."""
        pairs, origins = tuple(self.named.items()), tuple(self._origins.items())
        return Sizes(pairs, self._ellipsis, origins, self._dtypes)

    def bind(self, shape: Shape, actual: PartlyKnown, owner: str) -> None:
        """Bind the plain names of ``shape`` to ``actual``, the shape of the array ``owner``.

        Raises:
            Clash: If rank, a fixed size or a size bound before differs.
        """
        _check_rank(shape, len(actual))
        for dimension, axis, size in aligned(shape, actual):
            if size is None:
                continue
            if isinstance(dimension, Name):
                self._bind_name(dimension.name, size, f"`{owner}` axis {axis}", axis)
            elif isinstance(dimension, Size) and dimension.size != size:
                raise Clash(f"axis {axis} to have size {dimension.size}", str(size))
        if shape.rest_axis is not None:
            rest = _rest_of(shape, actual)
            known = tuple(size for size in rest if size is not None)
            if len(known) == len(rest):
                self._bind_ellipsis(known, f"`{owner}`")

    def check(self, shape: Shape, actual: PartlyKnown) -> None:
        """Compare the arithmetic in ``shape`` with ``actual``; skip what has unbound names.

        Raises:
            Clash: If a size differs or cannot be worked out.
        """
        for dimension, axis, size in aligned(shape, actual):
            if size is None or isinstance(dimension, (Name, Size)):
                continue
            # None where a name is unbound: only an input that was left out has it.
            expected = size_of(dimension, self.named)
            if expected is not None and expected != size:
                raise Clash(f"dimension `{dimension}` (axis {axis}) to be {expected}", str(size))

    def _bind_name(self, name: str, size: int, origin: str, axis: int) -> None:
        bound = self.named.setdefault(name, size)
        # The first array decides, and messages name it.
        set_by = self._origins.setdefault(name, origin)
        if bound != size:
            raise Clash(
                f"dimension `{name}` (axis {axis}) to be {bound}, set by {set_by}", str(size)
            )

    def _bind_ellipsis(self, rest: tuple[int, ...], origin: str) -> None:
        if self._ellipsis is None:
            self._ellipsis = rest
        set_by = self._origins.setdefault("...", origin)
        if self._ellipsis != rest:
            raise Clash(f"the dimensions `...` to be {self._ellipsis}, set by {set_by}", str(rest))


def size_of(term: Term, named: dict[str, int]) -> int | None:
    """The size of ``term``, or None while one of its names is unbound.

    Raises:
        Clash: If it divides by zero or is negative.
    """
    try:
        size = evaluate(term, named)
    except ZeroDivisionError:
        raise Clash(f"a size for the dimension `{term}`", "a division by zero") from None
    if size is not None and size < 0:
        raise Clash(f"a size of 0 or more for the dimension `{term}`", str(size))
    return size


def resolve(shape: Shape, sizes: Sizes) -> tuple[int, ...] | None:
    """The concrete shape, or None if ``sizes`` does not say all of it.

    Raises:
        Clash: If arithmetic in it divides by zero or is negative.
    """
    named = sizes.named
    result: list[int] = []
    for dimension in shape.dimensions:
        if isinstance(dimension, Rest):
            if sizes.ellipsis is None:
                return None
            result.extend(sizes.ellipsis)
            continue
        size = size_of(dimension, named)
        if size is None:
            return None
        result.append(size)
    return tuple(result)


def _check_rank(shape: Shape, rank: int) -> None:
    least = shape.least_rank
    if shape.rest_axis is None and rank != least:
        raise Clash(f"rank {least} for `{shape}`", f"rank {rank}")
    if rank < least:
        raise Clash(f"at least rank {least} for `{shape}`", f"rank {rank}")


def _rest_of(shape: Shape, actual: PartlyKnown) -> PartlyKnown:
    start = shape.rest_axis or 0
    return actual[start : start + len(actual) - shape.least_rank]


def aligned(shape: Shape, actual: Sequence[SizeT]) -> Iterator[tuple[Term, int, SizeT]]:
    """Each dimension but ``...`` with its axis and size in the array."""
    skipped = len(actual) - len(shape.dimensions)
    axis = 0
    for dimension in shape.dimensions:
        if isinstance(dimension, Rest):
            # `...` is one of the dimensions itself, so it stands for one axis more than are
            # skipped.
            axis += skipped + 1
            continue
        yield dimension, axis, actual[axis]
        axis += 1
