"""Shapes of two contracts compared: what inputs now ask for, what outputs now promise.

Names are words of their contract. So the new shapes are read in the old one's words first: the
arrays of an old call tell what each new name is. A consistent renaming then shows no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..language.problems import Path
from ..language.shapes import Dimension, Name, Rest, Shape, names_in
from ..language.versions import Level
from ..model import CallableSpec
from .corresponding_names import Reading, Shapes, read_shapes, written_as
from .equal_sizes import Equal, equal_by

# Level, path, text.
Found = tuple[Level, Path, str]


@dataclass(frozen=True)
class ShapePair:
    """The shapes of both contracts, and how each reads the other's inputs.

    Attributes:
        always: Inputs that every old call passes.
        equal: Whether two terms over old names are one size in every old call.
    """

    old_outputs: Shapes
    new_outputs: Shapes
    old_inputs: Shapes
    new_inputs: Shapes
    forth: Reading
    back: Reading
    always: frozenset[Path]
    equal: Equal


def pair_shapes(old: CallableSpec, new: CallableSpec) -> ShapePair:
    """Read the shapes of both contracts in each other's words."""
    old_inputs = {path: leaf.shape for path, leaf in old.input_leaves()}
    new_inputs = {path: leaf.shape for path, leaf in new.input_leaves()}
    return ShapePair(
        {path: leaf.shape for path, leaf in old.output_leaves()},
        {path: leaf.shape for path, leaf in new.output_leaves()},
        old_inputs,
        new_inputs,
        read_shapes(new_inputs, old_inputs, equal_by(old)),
        read_shapes(old_inputs, new_inputs, equal_by(new)),
        frozenset(path for path, leaf in old.input_leaves() if not leaf.optional),
        equal_by(old),
    )


def input_shape_changes(pair: ShapePair) -> Iterator[Found]:
    """Inputs that ask for more (breaking) or for less (additive)."""
    for (path, axis), text in pair.forth.clashes.items():
        yield "breaking", path, f"shape{_at(axis)} asks for more: {text}"
    for (path, axis), text in pair.back.clashes.items():
        # Where a place asks for more, that has been told already.
        if not any(one == path and place in (axis, None) for one, place in pair.forth.clashes):
            yield "additive", path, f"shape{_at(axis)} asks for less: no longer {text}"


def output_shape_changes(pair: ShapePair) -> Iterator[Found]:
    """Outputs that promise another size or less (breaking), or more (additive)."""
    forth: dict[str, str] = {}
    back: dict[str, str] = {}
    for path, shape in pair.new_outputs.items():
        if path in pair.old_outputs:
            yield from _output(pair, path, pair.old_outputs[path], shape, forth, back)


def _output(
    pair: ShapePair,
    path: Path,
    old: Shape,
    new: Shape,
    forth: dict[str, str],
    back: dict[str, str],
) -> Iterator[Found]:
    # In the old contract's words, in which a dimension that was only renamed is the same.
    meant = written_as(new, pair.forth)
    if len(meant) != len(old.dimensions) or _rest_axis(meant) != old.rest_axis:
        yield "breaking", path, f"shape changed from `{old}` to `{new}`"
        return
    # Without what `...` stands for, new dimensions can be shown one by one.
    shown = new.dimensions if len(new.dimensions) == len(meant) else meant
    told = _told_by_inputs(pair)
    # Four cases an axis, by whether the size was known before a call and whether it is now.
    for axis, (before, after) in enumerate(zip(old.dimensions, meant, strict=True)):
        if isinstance(before, Rest) or isinstance(after, Rest):
            continue
        was, now = f"`{before}`", f"`{shown[axis] or new.dimensions[axis]}`"
        before_told = not isinstance(before, Name) or before.name in told
        if after is not None and before_told:
            # Known then and now: the size must be the same in every old call.
            if not pair.equal(before, after):
                yield "breaking", path, f"shape{_at(axis)} changed from {was} to {now}"
            elif shown is new.dimensions and _may_be_left_out(pair, before, new.dimensions[axis]):
                text = f"{now} is known only where an optional input is passed, unlike {was}"
                yield "breaking", path, f"shape{_at(axis)}: {text}"
        elif after is not None:
            # Known only now.
            yield "additive", path, f"shape{_at(axis)} is now known before the call: {now}"
        elif before_told:
            # Known only then.
            if before != shown[axis] or _names_in(before) <= told:
                # Otherwise it is arithmetic over names that only outputs have, as it was.
                text = f"is no longer known before the call: {now} instead of {was}"
                yield "breaking", path, f"shape{_at(axis)} {text}"
        else:
            # Known neither then nor now.
            yield from _both_free(path, axis, before, shown[axis], forth, back)


def _both_free(
    path: Path,
    axis: int,
    before: Dimension,
    after: Dimension | None,
    forth: dict[str, str],
    back: dict[str, str],
) -> Iterator[Found]:
    """Names that only outputs have: what counts is which of them are equal."""
    was, now = str(before), str(after)
    # Each name stands for the first that it meets on the other side.
    if back.setdefault(was, now) != now:
        yield "breaking", path, f"shape{_at(axis)}: `{now}` need no longer equal `{back[was]}`"
    elif forth.setdefault(now, was) != was:
        yield "additive", path, f"shape{_at(axis)}: `{was}` now equals `{forth[now]}`"


def renamed_dimensions(pair: ShapePair) -> Iterator[Found]:
    """Dimensions that have another name everywhere and are otherwise what they were."""
    first: dict[tuple[str, str], Path] = {}
    for path, before, after in _aligned_names(pair):
        first.setdefault((before, after), path)
    olds, news = [old for old, _ in first], [new for _, new in first]
    for (before, after), path in first.items():
        # One to one: otherwise it is more than another name.
        if before != after and olds.count(before) == 1 and news.count(after) == 1:
            yield "neutral", path, f"dimension `{before}` renamed to `{after}`"


def _aligned_names(pair: ShapePair) -> Iterator[tuple[Path, str, str]]:
    """Names that stand at the same place of the same array."""
    for olds, news, kind in (
        (pair.old_inputs, pair.new_inputs, "inputs"),
        (pair.old_outputs, pair.new_outputs, "outputs"),
    ):
        for path in olds:
            old = olds[path].dimensions
            new = news[path].dimensions if path in news else ()
            if len(old) != len(new):
                continue
            for before, after in zip(old, new, strict=True):
                if isinstance(before, Name) and isinstance(after, Name):
                    yield (kind, *path), before.name, after.name


def _may_be_left_out(pair: ShapePair, before: Dimension, after: Dimension) -> bool:
    """Whether some old call tells ``before``, but not ``after``.

    For each name of ``after`` the call to look at passes every input that does not tell it.
    """
    for name in _names_in(after):
        silent = {
            path
            for path in pair.old_inputs
            if path not in pair.new_inputs or name not in pair.new_inputs[path].plain_names
        }
        if pair.always <= silent:
            told = {one for path in silent for one in pair.old_inputs[path].plain_names}
            if _names_in(before) <= told:
                return True
    return False


def _names_in(dimension: Dimension) -> frozenset[str]:
    return frozenset() if isinstance(dimension, Rest) else names_in(dimension)


def _told_by_inputs(pair: ShapePair) -> set[str]:
    return {name for shape in pair.old_inputs.values() for name in shape.plain_names}


def _rest_axis(dimensions: tuple[Dimension | None, ...]) -> int | None:
    return next((i for i, one in enumerate(dimensions) if isinstance(one, Rest)), None)


def _at(axis: int | None) -> str:
    return "" if axis is None else f" (axis {axis})"
