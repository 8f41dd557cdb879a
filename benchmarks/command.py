"""How long the command ``jaxtorch`` takes to start, and on 200 contracts."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from report import Row, Table, less_than

REPEATS = 8
CONTRACTS = 200
PYTHON = "python -c pass"

_PROGRAM = "from jaxtorch_bridge.tools.cli import main; main()"
_CONTRACT = """schema: jaxtorch/1
name: lib.op{number}
version: {version}
function: lib.ops:op{number}
doc: Scaled dot-product attention over heads.
inputs:
  q: float32[batch, heads, seq, dim]
  k: float32[batch, heads, keys, dim]
  v: float32[batch, heads, keys, dim]
  mask: {{shape: "[batch, keys]", dtype: bool, optional: true, doc: True where a key counts.}}
static: {{causal: false}}
outputs:
  out: float32[batch, heads, seq, dim]
constraints: ["dim % 8 == 0"]
vjp_depth: {depth}
sharding: {{batch: data}}
"""


def measure() -> list[Table]:
    """Minimum over fresh processes, the calls in turn."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder, "old"), "1.0.0", 1)
        _write(Path(folder, "new"), "1.1.0", 2)
        starts = {
            PYTHON: (),
            "jaxtorch --version": ("--version",),
            "jaxtorch --help": ("--help",),
            "jaxtorch schema": ("schema",),
            "jaxtorch check --syntax, one contract": ("check", "--syntax", "new/op0.yaml"),
        }
        many = {
            "jaxtorch check --syntax": ("check", "--syntax", "new"),
            "jaxtorch diff, all of them changed": ("diff", "old", "new"),
            "jaxtorch catalog": ("catalog", "new", "-o", "site"),
        }
        cpu, wall = _fastest({**starts, **many}, folder)
    notes = [
        "CPU seconds of a process, user and system: what it takes where it has a core to itself."
    ]
    return [
        Table(title, "CPU s (min)", _rows(calls, cpu, wall, limit), notes)
        for title, calls, limit in (
            (f"Command: start-up, {REPEATS} fresh processes each", starts, 0.3),
            (f"Command: {CONTRACTS} contracts", many, 1.0),
        )
    ]


def _rows(
    calls: Mapping[str, tuple[str, ...]],
    cpu: Mapping[str, float],
    wall: Mapping[str, float],
    limit: float,
) -> list[Row]:
    return [
        Row(
            name,
            cpu[name],
            {"wall, s": wall[name]},
            [] if name == PYTHON else [less_than(cpu[name], limit, "s")],
        )
        for name in calls
    ]


def _write(folder: Path, version: str, depth: int) -> None:
    folder.mkdir()
    for number in range(CONTRACTS):
        text = _CONTRACT.format(number=number, version=version, depth=depth)
        Path(folder, f"op{number}.yaml").write_text(text)


def _fastest(
    calls: Mapping[str, tuple[str, ...]], folder: str
) -> tuple[dict[str, float], dict[str, float]]:
    cpu = dict.fromkeys(calls, float("inf"))
    wall = dict.fromkeys(calls, float("inf"))
    names = list(calls)
    shuffle = random.Random(0).shuffle
    for _ in range(REPEATS):
        shuffle(names)
        for name in names:
            used, passed = _run(calls[name], folder)
            cpu[name], wall[name] = min(cpu[name], used), min(wall[name], passed)
    return cpu, wall


def _run(arguments: tuple[str, ...], folder: str) -> tuple[float, float]:
    before, start = _children_seconds(), time.perf_counter()
    program = _PROGRAM if arguments else "pass"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.DEVNULL,
        cwd=folder,
        check=False,
    )
    passed, used = time.perf_counter() - start, _children_seconds() - before
    if done.returncode:
        raise RuntimeError(f"jaxtorch {' '.join(arguments)} exited with {done.returncode}")
    return used, passed


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
