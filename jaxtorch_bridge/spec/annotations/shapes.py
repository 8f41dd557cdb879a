"""Shapes as jaxtyping writes them, such as ``*batch 3 n+1``, in a contract's terms."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..language.shapes import (
    Bounded,
    Dimension,
    Name,
    Rest,
    Shape,
    ShapeSyntaxError,
    parse_dimension,
)


class NotReadable(Exception):
    """An annotation that says something which no contract can."""


class AnnotatedShapes:
    """Reads the shapes of one function's annotations, which share their names."""

    def __init__(self) -> None:
        self._rest: str | None = None
        self._anonymous = (f"_{number}" for number in itertools.count())

    def read(self, text: str) -> Shape:
        """The shape written in ``text``.

        Raises:
            NotReadable: It holds sizes that broadcast, that differ from leaf to leaf or that code
                computes, or a second run of dimensions with another name.
        """
        dimensions = tuple(self._dimensions(text))
        if sum(isinstance(one, Rest) for one in dimensions) > 1:
            raise NotReadable(f"`{text}` has more than one run of dimensions")
        return Shape(dimensions)

    def _dimensions(self, text: str) -> Iterator[Dimension]:
        for word in text.split():
            # `rows=4` is jaxtyping's way to document a size.
            name, equals, value = word.partition("=")
            yield self._dimension(value if equals and name.isidentifier() else word)

    def _dimension(self, word: str) -> Dimension:
        if word == "...":
            return Rest()
        if word.startswith("*") and word[1:].isidentifier():
            # A contract has one `...` for all arrays of a call.
            if self._rest not in (None, word):
                raise NotReadable(f"`{word}` is a second run of dimensions, after `{self._rest}`")
            self._rest = word
            return Rest()
        if word == "_":
            # A name of its own each time: two `_` need not be the same size.
            return Name(next(self._anonymous))
        try:
            found = parse_dimension(word)
        except ShapeSyntaxError:
            raise NotReadable(f"`{word}` is no dimension that a contract can have") from None
        if isinstance(found, Bounded):  # of which the caller would get another size than it says
            raise NotReadable(f"`{word}` has a bound, which only contracts and `outputs` can say")
        return found


def is_anonymous(dimension: Dimension) -> bool:
    """Whether it stands for ``_``, any size at all."""
    return (
        isinstance(dimension, Name) and dimension.name[:1] == "_" and dimension.name[1:].isdigit()
    )
