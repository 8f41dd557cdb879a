"""What a benchmark family hands back, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import rich.box
from rich.console import Console
from rich.table import Table as RichTable

ABOVE_NOOP = "above no-op, us"


@dataclass(frozen=True)
class Target:
    """A figure that was aimed at, and the one measured. Shown, never asserted."""

    text: str
    met: bool


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        name: What was measured.
        value: In the table's unit.
        beside: Further columns, by heading: differences and ratios.
        targets: What this figure was aimed at.
    """

    name: str
    value: float
    beside: Mapping[str, float] = field(default_factory=dict)
    targets: Sequence[Target] = ()


@dataclass(frozen=True)
class Table:
    """Rows that belong together."""

    title: str
    unit: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()


def ratios(name: str, times: Mapping[str, float], others: Mapping[str, str]) -> dict[str, float]:
    """A variant's time over those of others that were measured; ``others``: heading to name."""
    return {
        heading: times[name] / times[other] for heading, other in others.items() if other in times
    }


def at_most(value: float, limit: float, what: str) -> Target:
    """The target ``what <= limit``, met if ``value`` is."""
    return Target(f"{what} <= {limit:g}", value <= limit)


def less_than(value: float, limit: float, unit: str) -> Target:
    """The target ``< limit``, met if ``value`` is."""
    return Target(f"< {limit:g} {unit}", value < limit)


def show(table: Table, console: Console) -> None:
    """Print a table."""
    headings = list(dict.fromkeys(heading for row in table.rows for heading in row.beside))
    grid = RichTable(
        title=table.title, title_justify="left", title_style="bold", box=rich.box.SIMPLE_HEAD
    )
    grid.add_column("")
    for heading in (table.unit, *headings):
        grid.add_column(heading, justify="right")
    grid.add_column("target")
    grid.add_column("met")
    for row in table.rows:
        beside = [_number(row.beside[h]) if h in row.beside else "" for h in headings]
        texts = "\n".join(target.text for target in row.targets)
        met = "\n".join("[green]yes" if target.met else "[red]no" for target in row.targets)
        grid.add_row(row.name, _number(row.value), *beside, texts, met)
    console.print(grid)
    for note in table.notes:
        console.print(f"  [dim]{note}[/dim]")
    console.print()


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.2f}"
