"""Bounds of two contracts compared, but for the sizes that they give: those are shapes."""

from __future__ import annotations

from collections.abc import Iterator

from ..array_tree import leaves_of
from ..bounded_sizes import bounded_names
from ..language.problems import Path
from ..model import CallableSpec
from ..tensor import TensorSpec
from .shapes import Found


def bounded_changes(old: CallableSpec, new: CallableSpec) -> Iterator[Found]:
    """What stands behind the values, what more than a bound is, and what is counted."""
    before, after = dict(leaves_of(old.outputs)), dict(leaves_of(new.outputs))
    for path in before.keys() & after.keys():
        was, now = bounded_names(before[path], old.bounds), bounded_names(after[path], new.bounds)
        if was and now:
            yield from _fill(path, before[path], after[path])
            yield from _overflow(path, _cuts(old, was), _cuts(new, now))
        elif now:
            yield "breaking", path, f"may now hold fewer values than its size: `{after[path]}`"
        elif was:
            yield "additive", path, f"holds as many values as its size: no longer `{before[path]}`"
        yield from _counts(path, path in old.counts, path in new.counts)


def _fill(path: Path, before: TensorSpec, after: TensorSpec) -> Iterator[Found]:
    was, now = before.fill or 0, after.fill or 0
    # By text: a NaN is not equal to itself.
    if str(was) != str(now):
        yield "breaking", path, f"filled with {now} instead of {was}"


def _cuts(spec: CallableSpec, names: list[str]) -> bool:
    return any(spec.bounds[name].overflow == "cut" for name in names)


def _overflow(path: Path, was: bool, now: bool) -> Iterator[Found]:
    if now and not was:
        yield "breaking", path, "more than the bound is lost, where it was an error"
    elif was and not now:
        yield "breaking", path, "more than the bound is an error, where it was cut"


def _counts(path: Path, was: bool, now: bool) -> Iterator[Found]:
    # Torch callers get one result more or less.
    if was and not now:
        yield "breaking", path, "is returned by the function, where it was counted for it"
    elif now and not was:
        yield "breaking", path, "is counted, where the function returned it"
