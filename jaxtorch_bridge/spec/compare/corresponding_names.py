"""One set of shapes read in the words of another: what does each name stand for over there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..language.problems import Path
from ..language.shapes import Dimension, Name, Operation, Rest, Shape, Term
from ..language.size_algebra import same_term, substitute
from .equal_sizes import Equal

Shapes = Mapping[Path, Shape]


@dataclass
class Reading:
    """How ``reader``'s input shapes understand arrays that have ``written``'s.

    Attributes:
        known: Name of the reader -> the first term of the writer that it meets.
        rest: The dimensions that the reader's ``...`` meets, or None if it has none.
        clashes: (path, axis) -> what the reader asks for beyond what was written; axis None
            is the whole shape.
    """

    known: dict[str, Term] = field(default_factory=dict)
    rest: tuple[Dimension, ...] | None = None
    clashes: dict[tuple[Path, int | None], str] = field(default_factory=dict)


def read_shapes(reader: Shapes, written: Shapes, equal: Equal = same_term) -> Reading:
    """What ``reader`` makes of ``written``, over the paths that both have.

    Args:
        reader: The shapes that ask.
        written: The shapes that calls have.
        equal: Whether two of the writer's terms are the same size in all of its calls.
    """
    reading = Reading()
    later: list[tuple[Path, int, Operation, Term]] = []
    for path, shape in reader.items():
        if path in written:
            _read_shape(reading, path, shape, written[path], later, equal)
    # Only now: arithmetic may speak of a name that a later array has met.
    for path, axis, term, other in later:
        meaning = substitute(term, reading.known)
        if meaning is None or not equal(meaning, other):
            reading.clashes[path, axis] = f"`{other}` must be `{term}`"
    return reading


def _read_shape(
    reading: Reading,
    path: Path,
    shape: Shape,
    written: Shape,
    later: list[tuple[Path, int, Operation, Term]],
    equal: Equal,
) -> None:
    aligned = align(shape, written)
    if aligned is None:
        reading.clashes[path, None] = f"`{written}` must be `{shape}`"
        return
    pairs, absorbed = aligned
    for axis, (dimension, other) in enumerate(pairs):
        if isinstance(dimension, Name):
            # The first array decides what the name stands for, as in a call.
            met = reading.known.setdefault(dimension.name, other)
            if not equal(met, other):
                reading.clashes[path, axis] = f"`{other}` must be the same size as `{met}`"
        elif isinstance(dimension, Operation):
            later.append((path, axis, dimension, other))
        elif not equal(dimension, other):
            reading.clashes[path, axis] = f"`{other}` must be `{dimension}`"
    if shape.rest_axis is not None:
        if reading.rest is None:
            reading.rest = absorbed
        if not _same_dimensions(reading.rest, absorbed, equal):
            shown = Shape(reading.rest)
            reading.clashes[path, None] = f"`{Shape(absorbed)}` must be the same sizes as `{shown}`"


def align(
    shape: Shape, written: Shape
) -> tuple[list[tuple[Term, Term]], tuple[Dimension, ...]] | None:
    """Pairs of dimensions, and what ``...`` absorbs; None if arrays may not fit the shape."""
    start = shape.rest_axis
    absorbed: tuple[Dimension, ...] = ()
    have, want = written.dimensions, shape.dimensions
    if start is None:
        if len(have) != len(want):
            return None
        before, after = list(zip(want, have, strict=True)), []
    else:
        tail = len(want) - start - 1
        if len(have) < start + tail:
            return None
        # Not strict: `have` goes on behind them.
        before = list(zip(want[:start], have, strict=False))
        end = len(have) - tail
        after = list(zip(want[start + 1 :], have[end:], strict=True))
        absorbed = have[start:end]
    pairs: list[tuple[Term, Term]] = []
    for mine, theirs in (*before, *after):
        # A `...` that does not meet the other one may stand for any number of dimensions.
        if isinstance(mine, Rest) or isinstance(theirs, Rest):
            return None
        pairs.append((mine, theirs))
    return pairs, absorbed


def _same_dimensions(
    left: tuple[Dimension, ...], right: tuple[Dimension, ...], equal: Equal
) -> bool:
    """Whether both are the same sizes, one by one."""
    return len(left) == len(right) and all(
        a == b if isinstance(a, Rest) or isinstance(b, Rest) else equal(a, b)
        for a, b in zip(left, right, strict=True)
    )


def written_as(shape: Shape, reading: Reading) -> tuple[Dimension | None, ...]:
    """``shape`` in the writer's words; None for a dimension that no input tells."""
    result: list[Dimension | None] = []
    for dimension in shape.dimensions:
        if not isinstance(dimension, Rest):
            result.append(substitute(dimension, reading.known))
        elif reading.rest is not None:
            result.extend(reading.rest)
        else:
            result.append(dimension)
    return tuple(result)
