"""The file of evidence: what the backend ``xla`` computes itself, of all in torch's database.

A line for each entry, a column for each dtype, a letter for each way. It is written from results,
and read by the test that makes a sample of it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from .database import DTYPES, MORE_DTYPES
from .outcome import Kind
from .page import installed_versions
from .result import Result
from .ways import EDGES

DTYPE_COLUMNS = (*DTYPES, *MORE_DTYPES)
WAY_LETTERS = ("jit", "vjp", "jvp", "vmap", EDGES)
_LETTERS: dict[Kind, str] = {
    "right": "+",
    "refused": "-",
    "torch": "t",
    "nothing": ".",
    "no dtype": ".",
    "no entry": ".",
    "wrong": "!",
}
_NOT_TRIED = "?"
_HEAD = """\
# Operators of torch's database by backend="xla" with islands=False, {versions}.
# Written by `python -m conformance --backend xla --evidence FILE`.
# Columns: {dtypes}.
# In each a letter for {ways}:
# + torch's results, - refused with the reason, t torch itself cannot, . nothing to compare,
# ! others than torch's, ? not tried yet.
# At edges (NaN, infinities, ties, zeros) kernels of torch's differ from what torch takes them apart
# into as well; sorts that are not stable, and eigenvectors, are free to differ.
"""


def letter_of(result: Result) -> str:
    """What stands for it in the file."""
    return _LETTERS[result.outcome.kind]


def write_evidence(results: Iterable[Result], path: Path) -> None:
    """Write the file. What it has of dtypes and ways that were not tried now stays.

    Args:
        results: Of the backend, without islands.
        path: The file. One of other versions of torch or JAX is written anew.
    """
    head = _HEAD.format(
        versions=installed_versions(),
        dtypes=" ".join(DTYPE_COLUMNS),
        ways=", ".join(WAY_LETTERS),
    )
    found: dict[str, dict[tuple[str, str], str]] = {}
    if path.exists() and path.read_text().startswith(head):
        for entry, dtype, way, letter in read_evidence(path):
            found.setdefault(entry, {})[dtype, way] = letter
    for result in results:
        found.setdefault(result.entry, {})[result.dtype, result.way] = letter_of(result)
    width = max(map(len, found))
    lines = [f"{entry:<{width}}  {_columns(found[entry])}\n" for entry in sorted(found)]
    path.write_text(head + "".join(lines))


def _columns(places: dict[tuple[str, str], str]) -> str:
    return " ".join(
        "".join(places.get((dtype, way), _NOT_TRIED) for way in WAY_LETTERS)
        for dtype in DTYPE_COLUMNS
    )


def read_evidence(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """(entry, dtype, way, letter) of what was tried."""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            continue
        entry, *columns = line.split()
        for dtype, letters in zip(DTYPE_COLUMNS, columns, strict=True):
            for way, letter in zip(WAY_LETTERS, letters, strict=True):
                if letter != _NOT_TRIED:
                    yield entry, dtype, way, letter
