"""Files made from contracts: whether each is up to date, and writing it whole or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .atomic_write import write_whole

State = Literal["up to date", "missing", "out of date", "foreign"]


@dataclass(frozen=True)
class Generated:
    """What a file should say, next to what stands in its place now.

    Attributes:
        path: The file.
        text: What it should say, with ``\\n`` line ends.
        mark: A line among the first two that tells a file made here from any other.
        found: What the file says, or None if there is none.
    """

    path: Path
    text: str
    mark: str
    found: str | None

    @property
    def state(self) -> State:
        """How the file compares; ``foreign`` is one that was not made here."""
        if self.found is None:
            return "missing"
        if self.found == self.text:
            return "up to date"
        return "out of date" if self.mark in self.found.split("\n", 2)[:2] else "foreign"

    def write(self) -> None:
        """Put the text in place; the file has all of it or is as before.

        Raises:
            OSError: If that cannot be done.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(str(self.path), self.text)


def text_of(path: Path) -> str | None:
    """What the file ``path`` says, or None if there is none.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    # A version control system may have changed line ends; that is no difference.
    return content.decode("utf-8", "replace").replace("\r\n", "\n")
