"""The versions of one contract side by side, and what changed from each to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import BaseModel

from ..spec.change import Change, highest
from ..spec.history import Comparison, compare
from ..spec.model import CallableSpec
from ..spec.versions import Level
from .parts import inputs_of, outputs_of, static_of


@dataclass(frozen=True)
class Cell:
    """What one version says of one part.

    Attributes:
        text: Its words; empty if the version does not have the part.
        level: What the change from the version before means; ``none`` if there is none.
    """

    text: str
    level: Level = "none"


@dataclass(frozen=True)
class Line:
    """One part in all versions, from the oldest on."""

    name: str
    cells: tuple[Cell, ...]

    @property
    def differs(self) -> bool:
        """Whether some version says something else than another."""
        return len({cell.text for cell in self.cells}) > 1


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
    cells = []
    title = ""
    for index, one in enumerate(says):
        title, text = one.get(path, (title, ""))
        before = says[index - 1].get(path, ("", ""))[1] if index else text
        level = _level(path, steps[index - 1].changes) if text != before else "none"
        cells.append(Cell(text, level))
    return Line(title, tuple(cells))


def _level(path: str, changes: tuple[Change, ...]) -> Level:
    """The gravest change at ``path`` or below; some texts differ only in how they are written."""
    levels = (one.level for one in changes if f"{one.path}.".startswith(f"{path}."))
    level = highest(levels)
    return "neutral" if level == "none" else level


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
