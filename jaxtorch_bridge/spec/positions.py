"""Where in its file each part of a contract stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .faults import Path

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
        """The deepest known path that ``dotted`` begins with; names may hold dots themselves."""
        path: Path = ()
        parts = dotted.split(".")
        while parts:
            for count in range(1, len(parts) + 1):
                longer = (*path, ".".join(parts[:count]))
                if longer in self.values:
                    path, parts = longer, parts[count:]
                    break
            else:
                break
        return path
