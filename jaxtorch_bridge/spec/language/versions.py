"""Semantic versions of contracts: how far apart two are, and how far a change must take them."""

from __future__ import annotations

from typing import Literal, TypeAlias

Version: TypeAlias = tuple[int, int, int]
Level = Literal["breaking", "additive", "neutral", "none"]
Step = Literal["major", "minor", "patch", "none"]

_STEPS: tuple[Step, ...] = ("none", "patch", "minor", "major")


def parse_version(text: str) -> Version:
    """The three numbers of a valid contract version."""
    major, minor, patch = (int(part) for part in text.split("."))
    return major, minor, patch


def needed_step(level: Level, old: Version) -> Step:
    """The least step of the version that a change of ``level`` asks for.

    Up to 1.0.0 everything moves one place down, as Cargo has it: the second number says that
    callers break, the third that they do not.
    """
    if level == "none":
        return "none"
    if level == "neutral":
        return "patch"
    if old[0] == 0:
        return "minor" if level == "breaking" else "patch"
    return "major" if level == "breaking" else "minor"


def version_problem(old: Version, new: Version, level: Level) -> str | None:
    """What is wrong with going from ``old`` to ``new`` for such a change; None if nothing is."""
    if new < old:
        return f"the version goes down, from {_text(old)} to {_text(new)}"
    needed = needed_step(level, old)
    if _STEPS.index(step_between(old, new)) >= _STEPS.index(needed):
        return None
    least = _text(next_version(old, needed))
    kind = "changes that no caller notices" if level == "neutral" else f"{level} changes"
    stays = "stays" if new == old else f"goes from {_text(old)} to"
    return f"the version {stays} {_text(new)}, but {kind} need {least} or later"


def step_between(old: Version, new: Version) -> Step:
    """The leftmost number that differs."""
    for step, before, after in zip(("major", "minor", "patch"), old, new, strict=True):
        if before != after:
            return step  # type: ignore[return-value]
    return "none"


def next_version(old: Version, step: Step) -> Version:
    """The first version that is ``step`` above ``old``."""
    major, minor, patch = old
    if step == "major":
        return major + 1, 0, 0
    if step == "minor":
        return major, minor + 1, 0
    return (major, minor, patch + 1) if step == "patch" else old


def _text(version: Version) -> str:
    return ".".join(str(number) for number in version)
