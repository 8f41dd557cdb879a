"""Times of a contract's function as a table in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..plan.table import operation_words, print_page


def print_bench(outline: Mapping[str, Any]) -> None:
    """Print the outline on standard output; see `print_page`."""
    print_page(_page(outline))


def _page(outline: Mapping[str, Any]) -> Group:
    title = Text(str(outline["contract"]), style="bold")
    sizes = ", ".join(f"{name}={size}" for name, size in outline["sizes"].items())
    where = f"  {outline['function']}  {sizes}  on {outline['platform']}  [{outline['source']}]"
    title.append(where, style="dim")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("backend", style="bold", no_wrap=True)
    for name in ("forward", "of torch", "gradient", "of torch", "first call"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in outline["rows"]:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    return Group(title, table, Text(str(outline["advice"]), style="green"))


def _cells(row: Mapping[str, Any]) -> list[str]:
    first = sum(row.get(name, 0.0) for name in ("first_call_s", "first_gradient_s"))
    return [
        row["backend"],
        *_times(row.get("forward")),
        *_times(row.get("gradient")),
        f"{first:.1f} s" if first else "",
        _remark(row),
    ]


def _times(found: Mapping[str, float] | None) -> tuple[str, str]:
    if found is None:
        return "", ""
    microseconds = found["median_us"]
    text = f"{microseconds / 1e3:.2f} ms" if microseconds >= 1e3 else f"{microseconds:.1f} us"
    return f"{text} ±{found['spread']:.0%}", f"{found['of_torch']:.2f}"


def _remark(row: Mapping[str, Any]) -> str:
    if "failed" in row:
        return f"does not run: {row['failed']}"
    return "; ".join(operation_words(row))
