"""What came of an entry in one dtype and one way, as a line of a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from .outcome import Outcome


@dataclass(frozen=True)
class Result:
    """One place of the table.

    Attributes:
        entry: The entry's name.
        dtype: What it computed with.
        way: How JAX used it.
        outcome: What came of it.
        seconds: What it took.
    """

    entry: str
    dtype: str
    way: str
    outcome: Outcome
    seconds: float = 0.0

    def line(self) -> str:
        """It as a line of JSON."""
        return json.dumps(asdict(self))


def read_results(path: Path) -> list[Result]:
    """Those of a file, if it is there; of several for the same place the last one."""
    if not path.exists():
        return []
    found: dict[tuple[str, str, str], Result] = {}
    for line in _whole(path.read_text().splitlines(keepends=True)):
        fields = json.loads(line)
        result = Result(**{**fields, "outcome": Outcome(**fields["outcome"])})
        found[result.entry, result.dtype, result.way] = result
    return list(found.values())


def _whole(lines: Iterable[str]) -> list[str]:
    # A run that was stopped leaves half a line.
    return [line for line in lines if line.endswith("\n")]
