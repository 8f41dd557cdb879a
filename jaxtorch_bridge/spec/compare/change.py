"""One difference between two versions of a contract, and what it means for callers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..language.versions import Level

_ORDER: tuple[Level, ...] = ("none", "neutral", "additive", "breaking")


@dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        level: ``breaking``: some call that worked fails or gives something else; ``additive``:
            calls that worked still do, and more can be done; ``neutral``: no caller notices.
        path: Where in the contract, such as ``inputs.q``.
        text: What changed and, where it is not plain, why it has this level.
        old: Its place in the old contract, ``file:line:column``.
        new: Its place in the new one.
    """

    level: Level
    path: str
    text: str
    old: str
    new: str

    def __str__(self) -> str:
        subject = f"{self.path}: " if self.path else ""
        return f"{self.level:<8}  {subject}{self.text} [{self.old} -> {self.new}]"


def highest(levels: Iterable[Level]) -> Level:
    """The gravest of ``levels``; ``none`` for none."""
    return max(levels, key=_ORDER.index, default="none")
