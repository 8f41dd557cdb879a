"""One thing that was looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# fine: as it should be. note: worth knowing. problem: something to do.
State = Literal["fine", "note", "problem"]


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        subject: What was looked at, such as ``versions``.
        state: Whether there is something to do.
        text: What is so.
        remedy: What to do; only of a problem.
    """

    subject: str
    state: State
    text: str
    remedy: str = ""


def fine(subject: str, text: str) -> Check:
    """Something that is as it should be."""
    return Check(subject, "fine", text)


def note(subject: str, text: str) -> Check:
    """Something worth knowing."""
    return Check(subject, "note", text)


def problem(subject: str, text: str, remedy: str) -> Check:
    """Something to do."""
    return Check(subject, "problem", text, remedy)
