"""Two versions of a contract: what changed for callers, and whether the version says so."""

from __future__ import annotations

from collections.abc import Iterator

from ..language.versions import Level, parse_version, version_problem
from ..model import CallableSpec
from .arrays import empty_changes, input_changes, output_changes, structure_changes
from .bounded_sizes import bounded_changes
from .change import Change, highest
from .fields import field_changes
from .shapes import (
    Found,
    input_shape_changes,
    output_shape_changes,
    pair_shapes,
    renamed_dimensions,
)

__all__ = ["Change", "diff_specs", "unsaid_by_version"]


def diff_specs(old: CallableSpec, new: CallableSpec) -> tuple[Change, ...]:
    """Every change from ``old`` to ``new`` but that of the version; the gravest first."""
    found = list(dict.fromkeys(_found(old, new)))
    if not found and old.digest() != new.digest():
        found.append(("neutral", (), "written differently, means the same"))
    changes = [
        Change(level, ".".join(path), text, old.where(".".join(path)), new.where(".".join(path)))
        for level, path, text in found
    ]
    rank = {"breaking": 0, "additive": 1, "neutral": 2, "none": 3}
    return tuple(sorted(changes, key=lambda one: (rank[one.level], one.path, one.text)))


def unsaid_by_version(
    old: CallableSpec, new: CallableSpec, changes: tuple[Change, ...]
) -> str | None:
    """Why the new version number does not say what ``changes`` are; None if it does."""
    # A digest leaves remarks out, as callers do.
    same = old.digest() == new.digest()
    level: Level = "none" if same else highest(one.level for one in changes)
    return version_problem(parse_version(old.version), parse_version(new.version), level)


def _found(old: CallableSpec, new: CallableSpec) -> Iterator[Found]:
    pair = pair_shapes(old, new)
    for found in (input_changes(old, new), input_shape_changes(pair)):
        yield from _below("inputs", found)
    for found in (
        output_changes(old, new),
        output_shape_changes(pair),
        bounded_changes(old, new),
    ):
        yield from _below("outputs", found)
    for kind in ("inputs", "outputs"):
        yield from structure_changes(getattr(old, kind), getattr(new, kind), (kind,))
        yield from empty_changes(getattr(old, kind), getattr(new, kind), (kind,))
    yield from renamed_dimensions(pair)
    yield from field_changes(old, new, pair)


def _below(parent: str, found: Iterator[Found]) -> Iterator[Found]:
    for level, path, text in found:
        yield level, (parent, *path), text
