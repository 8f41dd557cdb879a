"""Where in its file each part of a contract stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from .language.problems import Path

Position = tuple[int, int]


@dataclass(frozen=True)
class Positions:
    """The lines and columns of one contract file, both counted from 1.

    Attributes:
        file: The path as the caller gave it.
        values: Path in the contract -> where the value begins.
        keys: Path in the contract -> where its name stands.
    """

    file: str
    values: Mapping[Path, Position] = field(repr=False)
    keys: Mapping[Path, Position] = field(repr=False)

    def of_value(self, path: Path) -> Position:
        """Where ``path`` begins, or else the nearest part that encloses it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))

    def of_key(self, path: Path) -> Position:
        """Where the name of ``path`` stands, or else the value."""
        return self.keys.get(path) or self.of_value(path)

    def where(self, dotted: str) -> str:
        """``file:line:column`` of a path such as ``inputs.q.dtype``."""
        line, column = self.of_value(self._split(dotted))
        return f"{self.file}:{line}:{column}"

    def _split(self, dotted: str) -> Path:
        """The known path that most of ``dotted`` says; names may hold dots themselves."""
        while dotted and dotted not in self._by_dotted:
            dotted = dotted.rpartition(".")[0]
        return self._by_dotted.get(dotted, ())

    @cached_property
    def _by_dotted(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in self.values:
            # Names may hold dots: of two paths that read the same the first counts.
            found.setdefault(".".join(path), path)
        return found
