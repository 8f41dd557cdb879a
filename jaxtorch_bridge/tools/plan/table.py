"""An outline of a plan as a table in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ...jaxside.inlined.coverage import Coverage
from .outline import OPERATIONS

_PIPE_WIDTH = 120

Row = tuple[str, str, str]


def print_table(outline: Mapping[str, Any]) -> None:
    """Print the outline on standard output; see `print_page`."""
    print_page(table_of(outline))


def print_page(page: RenderableType) -> None:
    """Print on standard output: in colours and as wide as a terminal, if it is one."""
    console = Console()
    if console.is_terminal:
        console.print(page)
        return
    # In a pipe the width is nobody's, and blanks at the end of a line are in the way.
    console = Console(width=_PIPE_WIDTH)
    with console.capture() as captured:
        console.print(page)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def table_of(outline: Mapping[str, Any]) -> Group:
    """The outline, one decision a row, and why a better one was not taken."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    last = ""
    for subject, name, words in _rows(outline):
        # Plain text: a name such as `x[0]` is no markup.
        table.add_row(Text("" if subject == last else subject), Text(name), Text(words))
        last = subject
    title = Text(str(outline["contract"]), style="bold")
    title.append(f"  {outline['function']}  [{outline['source']}]", style="dim")
    return Group(title, table)


def _rows(outline: Mapping[str, Any]) -> Iterator[Row]:
    for one in outline["inputs"]:
        remark = "" if one["differentiable"] else ", not differentiable"
        yield "inputs", one["name"], _array(one) + remark
    for name, value in outline["static"].items():
        yield "static", name, value
    for one in outline["outputs"]:
        yield "outputs", one["name"], f"{_array(one)}, {one['written']}"
    sizes = ", ".join(f"{name}={size}" for name, size in outline["sizes"].items())
    if sizes:
        yield "sizes", "", sizes
    yield "found by", "", outline["found_by"]
    for words in outline["not_found_by"]:
        yield "found by", "", f"not {words}"
    yield "backend", outline["backend"]["name"], outline["backend"]["why"]
    for words in operation_words(outline["backend"]):
        yield "backend", "", words
    for one in outline["derivatives"]:
        yield from _derivative(one)
    batching = outline["batching"]
    yield "vmap", batching["method"], f"a batch of {batching['size']}: {batching['words']}"
    for one in outline["sharding"]:
        yield "sharding", one["dimension"], _shard(one)
    yield "concurrency", outline["concurrency"]["mode"], outline["concurrency"]["why"]
    for note in outline["notes"]:
        yield "note", "", note


def _derivative(one: Mapping[str, Any]) -> Iterator[Row]:
    subject = "gradient" if one["order"] == 1 else f"order {one['order']}"
    if one["engine"] == "none":
        yield subject, "none", "; ".join(one["why"])
        return
    yield subject, one["engine"], f"by {', '.join(one['by']) or 'nothing'}: {one['words']}"
    for sig in one["residuals"]:
        yield subject, "", f"keeps {sig['name']} {_array(sig)}, {sig['size_bytes']} bytes"
    for words in one["why"]:
        yield subject, "", f"not {words}"
    for words in operation_words(one):
        yield subject, "", words


def operation_words(one: Mapping[str, Any]) -> Iterator[str]:
    """What becomes of the operations of an op; nothing where XLA does not run them."""
    if "operations" in one:
        yield from Coverage(*(one[name] for name in OPERATIONS)).words


def _shard(one: Mapping[str, Any]) -> str:
    along = f"along mesh axis {one['mesh_axis']}"
    if one["shards"] is None:
        return f"may be cut {along}: one call for each shard"
    return f"cut {along}: one call for each of {one['shards']} shards of {one['size_of_shard']}"


def _array(one: Mapping[str, Any]) -> str:
    seen = "" if one["dtype"] == one["torch_dtype"] else f" (torch: {one['torch_dtype']})"
    return f"{one['dtype']}[{_listed(one['shape'])}]{seen}"


def _listed(sizes: Iterable[int]) -> str:
    return ", ".join(map(str, sizes))
