"""The page that says what came of the database: totals first, then what is not right, by reason."""

from __future__ import annotations

import importlib.metadata
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from .database import DTYPES
from .outcome import Kind
from .reasons import reason_of
from .result import Result
from .ways import WAYS

_HEAD = """# Operators

Torch tests itself by a database of its operators (`torch.testing._internal`, {entries} entries),
with samples of their arguments. Here each is called from JAX and compared with torch on the same
values. `make conformance` makes this page; this one is of {versions}.

| way | what is compared |
|---|---|
{ways}
Float32 has two samples an entry, of which the worse counts, the other dtypes one: the first that
has several values, and the one with the most arguments. 64-bit dtypes are on where an argument
needs them. Floats agree in three quarters of their digits, relative to the greatest value of an
array, or of all arrays where derivatives are among them; everything else is equal. What draws
random numbers, or gives memory as it was, is compared by shapes and dtypes.

"""
_COMPARED = {
    "jit": "the call under `jax.jit`; what draws random numbers is called with a key, and gives "
    "the same for the same key",
    "vjp": "results and gradients of `jax.vjp`, by all arguments that torch's own tests take, "
    "with `torch.autograd.grad`",
    "jvp": "results and tangents of `jax.jvp` with `torch.func.jvp`; where torch has no rule in "
    "forward mode, or one that its own gradients contradict, with the gradients",
    "vmap": "`jax.vmap` over two samples, with two calls",
    "in place": "the form that writes to its argument, such as `add_`, with `mutates` under "
    "`jax.jit`: the new value",
}

_COLUMNS: tuple[tuple[Kind, str], ...] = (
    ("right", "right"),
    ("refused", "refused"),
    ("torch", "torch cannot"),
    ("nothing", "nothing to compare"),
    ("no dtype", "torch lacks the dtype"),
    ("wrong", "wrong"),
)
_TABLE_HEAD = "| why | ways | dtypes | operators |\n|---|---|---|---|\n"


def write_page(results: Sequence[Result], path: Path) -> None:
    """Write the page.

    Args:
        results: One for each entry, dtype and way.
        path: The file.
    """
    entries = len({result.entry for result in results})
    parts = [
        _HEAD.format(
            entries=entries,
            versions=installed_versions(),
            ways="".join(f"| `{way}` | {_COMPARED[way]} |\n" for way in WAYS),
        ),
        "## Totals\n\n",
        _totals(results),
        "\nNothing to compare: derivatives of integers or by them, a batch where no argument is an "
        "array or where elements have results of several sizes, operators without a form in "
        "place.\n\n",
        "## Wrong\n\n",
        _by_reason(results, "wrong", "None.\n"),
        "\n## Refused\n\n",
        "Errors of this package, as they are meant. Where a message says what to do instead, that "
        "was done, and compared.\n\n",
        _by_reason(results, "refused", "None.\n"),
        "\n## What torch itself cannot\n\n",
        "Torch raises, and the call from JAX raises too. Or torch's forward mode contradicts its "
        "gradients: where several values are written to one place, where it gives NaN, or noughts "
        "instead of an error. From JAX then come torch's tangents, or those that agree with the "
        "gradients, or an error, but never noughts.\n\n",
        _by_reason(results, "torch", "None.\n"),
    ]
    path.write_text("".join(parts))


def installed_versions() -> str:
    """The versions that a page is of."""
    # Without what says how it was built.
    torch = importlib.metadata.version("torch").partition("+")[0]
    return f"torch {torch} and JAX {importlib.metadata.version('jax')}"


def refusals_on(path: Path) -> set[tuple[str, str]]:
    """What a page says is refused: (entry, way), in some dtype at least."""
    section = path.read_text().partition("## Refused\n")[2].partition("\n## ")[0]
    found = set()
    for row in re.findall(r"^\|(?!---)(.*)\|$", section, re.MULTILINE):
        _, ways, _, operators = row.split(" | ")
        found |= {
            (name, way) for name in re.findall(r"`(.+?)`", operators) for way in ways.split(", ")
        }
    return found


def _totals(results: Iterable[Result]) -> str:
    counts: dict[tuple[str, str, str], int] = defaultdict(int)
    for result in results:
        counts[result.dtype, result.way, result.outcome.kind] += 1
    lines = [
        f"| dtype | way | {' | '.join(title for _, title in _COLUMNS)} |\n",
        f"|---|---|{'---:|' * len(_COLUMNS)}\n",
    ]
    for dtype in DTYPES:
        for way in WAYS:
            row = " | ".join(str(counts[dtype, way, kind]) for kind, _ in _COLUMNS)
            lines.append(f"| {dtype} | {way} | {row} |\n")
    sums = [
        sum(count for (_, _, other), count in counts.items() if other == kind)
        for kind, _ in _COLUMNS
    ]
    lines.append(f"| all | all | {' | '.join(map(str, sums))} |\n")
    return "".join(lines)


def _by_reason(results: Sequence[Result], kind: Kind, if_none: str) -> str:
    """Rows of reasons, each with the entries that share it, in the same ways and dtypes."""
    tried: dict[tuple[str, str], set[str]] = defaultdict(set)
    places: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for result in results:
        if result.outcome.kind not in ("no dtype", "nothing"):
            tried[result.entry, result.way].add(result.dtype)
        if result.outcome.kind == kind:
            reason = reason_of(result.outcome)
            places[reason, result.entry].add((result.way, result.dtype))
    rows: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for (reason, entry), found in places.items():
        ways = [way for way in WAYS if way in {way for way, _ in found}]
        dtypes = {dtype for _, dtype in found}
        all_of_them = dtypes == set().union(*(tried[entry, way] for way in ways))
        named = "all" if all_of_them else ", ".join(d for d in DTYPES if d in dtypes)
        rows[reason, ", ".join(ways), named].append(entry)
    if not rows:
        return if_none
    lines = [_TABLE_HEAD]
    for (reason, ways, dtypes), names in sorted(rows.items()):
        words = " ".join(reason.replace("|", "/").split())
        operators = ", ".join(f"`{name}`" for name in sorted(names))
        lines.append(f"| {words} | {ways} | {dtypes} | {operators} |\n")
    return "".join(lines)
