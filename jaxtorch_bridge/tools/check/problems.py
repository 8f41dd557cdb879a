"""What a proof found, in the form that problems of contract files have."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import TracebackType

from ...errors import SpecError, SpecMismatchError, SpecProblem
from ...spec.model import CallableSpec

# Frames below these are not the user's.
_LIBRARIES = ("/torch/", "/jax/", "/jaxtorch_bridge/", "importlib")


def problem_at(spec: CallableSpec, path: str, expected: str, found: str) -> SpecProblem:
    """A problem with the part ``path`` of a contract, at its place in the file."""
    return placed(spec.where(path), path, expected, found)


def placed(place: str, path: str, expected: str, found: str) -> SpecProblem:
    """A problem at a place such as ``specs/attention.yaml:7:6``."""
    parts = place.rsplit(":", 2)
    if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
        return SpecProblem(path, expected, found, parts[0], int(parts[1]), int(parts[2]))
    return SpecProblem(path, expected, found)


def of_mismatch(spec: CallableSpec, error: SpecMismatchError, words: str) -> SpecProblem:
    """What an error of the contract's enforcement says, and for which call."""
    place = error.place or spec.where(error.path)
    found = error.found.removeprefix("got ")
    if found.startswith("torch returned "):
        found = f"{found.removeprefix('torch returned ').removesuffix(' when tracing')} from torch"
    return placed(place, error.path, error.expected, f"{found}, with {words}")


def of_contract(spec: CallableSpec, error: SpecError) -> Iterator[SpecProblem]:
    """What wrapping a function with its contract objects to."""
    for one in error.problems:
        if one.file is not None:
            yield one
        else:
            # The place stands in the words already, as nothing else carries it there.
            expected = one.expected.replace(f" [{spec.where(one.path)}]", "")
            yield problem_at(spec, one.path, expected, one.found)


def first_line(error: BaseException) -> str:
    """The type of an exception, the first line of its message, and where the user's code stood."""
    lines = str(error).strip().splitlines()
    text = type(error).__name__ + (f": {lines[0][:300]}" if lines else "")
    return text + _raised_at(error.__traceback__)


def _raised_at(trace: TracebackType | None) -> str:
    for frame in reversed(traceback.extract_tb(trace)):
        name = frame.filename.replace("\\", "/")
        if not any(library in name for library in _LIBRARIES) and not name.startswith("<"):
            return f" ({frame.filename}:{frame.lineno})"
    return ""


def undeclared_draws(spec: CallableSpec, words: str) -> SpecProblem:
    """That a function draws random numbers which the contract does not declare."""
    expected = "a function that draws no random numbers, or `random: key`"
    found = f"one that draws them, of which JAX may merge or drop equal calls, with {words}"
    return problem_at(spec, "random", expected, found)
