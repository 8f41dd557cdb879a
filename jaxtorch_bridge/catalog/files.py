"""The page on disk: whether it is up to date, and writing it whole or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..spec.atomic import write_whole
from .page import MARK

State = Literal["up to date", "missing", "out of date", "foreign"]


@dataclass(frozen=True)
class Page:
    """The page next to what stands in its place now.

    Attributes:
        path: Its file.
        text: What it should say.
        found: What the file says, or None if there is none.
    """

    path: Path
    text: str
    found: str | None

    @property
    def state(self) -> State:
        """How the file compares; ``foreign`` is one that was not made here."""
        if self.found is None:
            return "missing"
        if self.found == self.text:
            return "up to date"
        return "out of date" if MARK in self.found.split("\n", 2)[:2] else "foreign"

    def write(self) -> None:
        """Put the text in place; the file has all of it or is as before.

        Raises:
            OSError: If that cannot be done.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(str(self.path), self.text)


def page_in(out: Path, text: str) -> Page:
    """The page that belongs under ``out``.

    Raises:
        OSError: If a file that is there cannot be read.
    """
    path = out / "index.html"
    try:
        found = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        found = None
    # A version control system may have changed line ends; that is no difference.
    return Page(path, text, None if found is None else found.replace("\r\n", "\n"))
