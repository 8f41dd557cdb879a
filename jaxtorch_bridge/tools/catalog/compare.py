"""The versions of one contract side by side, and what changed from each to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel

from ...spec.compare.change import Change, highest
from ...spec.compare.history import Comparison, compare
from ...spec.language.versions import Level
from ...spec.model import CallableSpec
from .parts import inputs_of, outputs_of, static_of


@dataclass(frozen=True)
class Cell:
    """What one version says of one part.

    Attributes:
        text: Its words; empty if the version does not have the part.
        mark: What the change from the version before means for callers; ``changed`` if the words
            differ, but no change is told of this part by itself; empty if it is as before.
    """

    text: str
    mark: Literal["breaking", "additive", "neutral", "changed", ""] = ""


@dataclass(frozen=True)
class Line:
    """One part in all versions, from the oldest on."""

    name: str
    cells: tuple[Cell, ...]

    @property
    def differs(self) -> bool:
        """Whether something changed from some version to the next."""
        return any(cell.mark for cell in self.cells)


@dataclass(frozen=True)
class SideBySide:
    """All versions of one contract.

    Attributes:
        versions: From the oldest on.
        lines: One for each part that some version has.
        steps: From each version to the next, the newest step first.
    """

    versions: tuple[str, ...]
    lines: tuple[Line, ...]
    steps: tuple[Comparison, ...]

    @property
    def differs(self) -> bool:
        """Whether some part does."""
        return any(line.differs for line in self.lines)


# Fields that are a version's own, or that have lines of their own.
_ELSEWHERE = frozenset(("schema_id", "name", "version", "function", "inputs", "static", "outputs"))
# Path in the contract, as changes name it -> title and text.
_Says = dict[str, tuple[str, str]]


def side_by_side(versions: Sequence[CallableSpec]) -> SideBySide:
    """Compare ``versions``, which come from the oldest on, each with the one before."""
    steps = [compare(old, new) for old, new in pairwise(versions)]
    says = [_says(spec) for spec in versions]
    # The newest first, so that its order of parts is the one shown.
    paths = dict.fromkeys(path for one in reversed(says) for path in one)
    lines = tuple(_line(path, says, steps) for path in _grouped(paths))
    return SideBySide(tuple(spec.version for spec in versions), lines, tuple(reversed(steps)))


def _line(path: str, says: list[_Says], steps: list[Comparison]) -> Line:
    title, text = says[0].get(path, ("", ""))
    cells = [Cell(text)]
    for one, step in zip(says[1:], steps, strict=True):
        before = text
        # A part that is gone keeps its title.
        title, text = one.get(path, (title, ""))
        cells.append(_cell(text, before, _level(path, step.changes)))
    return Line(title, tuple(cells))


def _cell(text: str, before: str, level: Level) -> Cell:
    if level == "none":
        return Cell(text, "" if text == before else "changed")
    # A remark may have changed, which these words leave out; what callers notice is marked even
    # if the words are the same: an axis may be tied to another array that changed.
    return Cell(text, "" if text == before and level == "neutral" else level)


def _level(path: str, changes: tuple[Change, ...]) -> Level:
    """The gravest change that is told of ``path`` or of what is below."""
    return highest(one.level for one in changes if f"{one.path}.".startswith(f"{path}."))


def _grouped(paths: dict[str, None]) -> list[str]:
    """Parts that only older versions have go to the others of their kind."""
    kinds = list(dict.fromkeys(_kind(path) for path in paths))
    return sorted(paths, key=lambda path: kinds.index(_kind(path)))


def _kind(path: str) -> str:
    return path.partition(".")[0]


def _says(spec: CallableSpec) -> _Says:
    said: _Says = {}
    if spec.function:
        said["function"] = "function", spec.function
    for kind, parts in (
        ("inputs", inputs_of(spec)),
        ("static", static_of(spec)),
        ("outputs", outputs_of(spec)),
    ):
        for part in parts:
            title = f"{kind.removesuffix('s')} {part.name}"
            said[f"{kind}.{part.name}"] = title, ", ".join((part.type, *part.tags))
    for field in type(spec).model_fields:
        if field not in _ELSEWHERE:
            for path, text in _settings(field, getattr(spec, field)):
                said[path] = path, text
    return said


def _settings(path: str, value: object) -> Iterator[tuple[str, str]]:
    """The words of a field; fields of a part, such as ``execution.backend``, one by one."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _settings(f"{path}.{name}", getattr(value, name))
    elif isinstance(value, Mapping):
        yield path, "\n".join(f"{name}: {one}" for name, one in value.items())
    elif isinstance(value, tuple):
        yield path, "\n".join(str(one) for one in value)
    elif isinstance(value, bool):
        yield path, str(value).lower()
    else:
        yield path, "" if value is None else str(value)
