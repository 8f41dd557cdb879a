"""Run the benchmarks and print a table for each: ``python benchmarks/run.py``.

Times are shown beside their targets and never asserted: the exit status is 0 unless a benchmark
could not run.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from report import Table, show
from rich.console import Console

# One module each, with a function `measure() -> list[Table]`.
FAMILIES = (
    "call_overhead",
    "eager_calls",
    "sizes",
    "training",
    "derivatives",
    "modules",
    "models",
    "backends",
    "batching",
    "devices",
    "memory",
    "growth",
    "imports",
    "command",
    "build",
)


_FILE_WIDTH = 110


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 1 if a family raised."""
    options = _parse(arguments)
    # The figures are the CPU's, also where there is a GPU. Read when JAX is imported.
    os.environ["JAX_PLATFORMS"] = "cpu"
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)  # rather than the 80 columns of no terminal
    machine = _machine()
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), "\n")
    tables: dict[str, list[Table]] = {}
    failed = []
    for family in options.only or FAMILIES:
        try:
            tables[family] = importlib.import_module(family).measure()
        except Exception:
            failed.append(family)
            console.print(f"[red]{family} could not run[/red]")
            traceback.print_exc()
            continue
        for table in tables[family]:
            show(table, console)
    machine["load at the end"] = _load()
    console.print(f"load at the end {machine['load at the end']}")
    if options.json is not None:
        report = {
            "machine": machine,
            "families": {name: [asdict(table) for table in tables[name]] for name in tables},
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure jaxtorch_bridge beside its peers.")
    parser.add_argument(
        "--only",
        action="append",
        choices=FAMILIES,
        metavar="NAME",
        help=f"run this family alone; may be repeated: {', '.join(FAMILIES)}",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the figures here too")
    return parser.parse_args(arguments)


def _machine() -> dict[str, Any]:
    versions = {}
    for name in ("jax", "jaxlib", "torch", "wrap-torch2jax"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "missing"
    return {
        "python": platform.python_version(),
        **versions,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        # Other processes that want the same cores; above the core count, expect noise.
        "load": _load(),
    }


def _load() -> float:
    return round(os.getloadavg()[0], 1)


if __name__ == "__main__":
    raise SystemExit(main())
