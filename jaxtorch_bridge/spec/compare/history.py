"""All contracts of a codebase before and after: which one replaces which."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..language.versions import Level, Version, parse_version
from ..model import CallableSpec
from .change import Change, highest
from .diff_contracts import diff_specs, unsaid_by_version


@dataclass(frozen=True)
class Comparison:
    """One contract before and after.

    Attributes:
        old: What callers relied on, or None for a new contract.
        new: What takes its place, or None for a removed one.
        changes: What differs, the gravest first.
        problem: Why the version does not say so, or None if it does.
    """

    old: CallableSpec | None
    new: CallableSpec | None
    changes: tuple[Change, ...] = ()
    problem: str | None = None

    @property
    def label(self) -> str:
        """Name and versions, such as ``attention 2.1.0 -> 2.2.0``."""
        before, after = self.old, self.new
        if before is None or after is None:
            return getattr(before or after, "label", "")
        if before.name != after.name:
            return f"{before.label} -> {after.label}"
        if before.version == after.version:
            return after.label
        return f"{after.name} {before.version} -> {after.version}"


def compare(old: CallableSpec, new: CallableSpec) -> Comparison:
    """Two versions of one contract."""
    changes = diff_specs(old, new)
    return Comparison(old, new, changes, unsaid_by_version(old, new, changes))


def compare_all(old: Iterable[CallableSpec], new: Iterable[CallableSpec]) -> tuple[Comparison, ...]:
    """What differs between two states of a codebase, by name and version.

    A version that is on both sides is compared with itself, a new one with the newest before it.
    A version that is gone is a problem, unless a later one of the same line (the same first
    number, below 1.0.0 the first two) takes over what ``name@2`` finds, or its file became the
    next version.
    """
    before, after = _by_name(old), _by_name(new)
    result: list[Comparison] = []
    for name in sorted(before.keys() | after.keys()):
        result += _of_one_name(before.get(name, {}), after.get(name, {}))
    return tuple(result)


def _of_one_name(
    old: dict[Version, CallableSpec], new: dict[Version, CallableSpec]
) -> Iterator[Comparison]:
    gone = [version for version in old if version not in new]
    replaced: set[Version] = set()
    # What is there now, each against itself or against the newest before it.
    for version in sorted(new):
        if version in old:
            same = compare(old[version], new[version])
            if same.changes or same.problem:
                yield same
            continue
        previous = _previous(version, old, gone)
        if previous is None:
            yield Comparison(None, new[version])
        else:
            replaced.add(previous)
            yield compare(old[previous], new[version])
    # What is gone, and has become nothing of the above.
    for version in sorted(gone):
        if version not in replaced and not any(_takes_over(one, version) for one in new):
            label = f"{old[version].name}@{line_of(version)}"
            text = f"removed, and no later version answers to `{label}`"
            yield Comparison(old[version], None, problem=text)


def _previous(
    version: Version, old: dict[Version, CallableSpec], gone: list[Version]
) -> Version | None:
    earlier = [one for one in old if one < version]
    if earlier:
        return max(earlier)
    # A file whose version went down; one that came beside what is still there is no step back.
    return min(gone, default=None)


def _takes_over(later: Version, version: Version) -> bool:
    return later > version and line_of(later) == line_of(version)


def line_of(version: Version) -> str:
    """The numbers that stay while callers do not break: ``2``, or ``0.3`` below 1.0.0."""
    return str(version[0]) if version[0] else f"0.{version[1]}"


def _by_name(specs: Iterable[CallableSpec]) -> dict[str, dict[Version, CallableSpec]]:
    result: dict[str, dict[Version, CallableSpec]] = {}
    for spec in specs:
        result.setdefault(spec.name, {})[parse_version(spec.version)] = spec
    return result


def gravest(comparisons: Iterable[Comparison]) -> Level:
    """The gravest level of all changes; a removed contract breaks callers, a new one adds."""
    return highest(level for one in comparisons for level in _levels(one))


def _levels(comparison: Comparison) -> Iterator[Level]:
    if comparison.new is None:
        yield "breaking"
    elif comparison.old is None:
        yield "additive"
    yield from (change.level for change in comparison.changes)
