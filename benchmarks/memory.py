"""Memory that a call adds: 1 GiB in, a scalar out, under jit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import subjects
import torch
from child import reset_peak, resident_mib, run_child
from report import Row, Table, less_than

# The bridge loads parts of torch when it plans for the first time, which has no target.
FIRST = "bridge, first call of the process"
COUNT = 2**28  # float32 values: 1 GiB


def total(x: Any) -> Any:
    return x.sum()


def measure() -> list[Table]:
    """Each variant in a process of its own: an allocator gives little back."""
    rows = []
    for name in (subjects.BRIDGE, FIRST, subjects.PEER, subjects.CALLBACK, subjects.XLA):
        growth = run_child(__file__, name)["growth_mib"]
        if growth is not None:
            targets = [less_than(growth, 64, "MiB")] if name in (subjects.BRIDGE, FIRST) else []
            rows.append(Row(name, growth, targets=targets))
    title = "Memory: peak growth of a jitted sum of 1 GiB, planning and compiling included"
    return [Table(title, "MiB", rows, subjects.peer_notes())]


def _form(name: str) -> Callable[..., Any] | None:
    if name in (subjects.BRIDGE, FIRST):
        return subjects.bridge(total)
    if name == subjects.PEER:
        return subjects.peer(total, torch.ones(COUNT))
    if name == subjects.CALLBACK:
        return subjects.callback(total, jax.ShapeDtypeStruct((), jnp.float32))
    return total


def _child(name: str) -> dict[str, float | None]:
    form = _form(name)
    if form is None:
        return {"growth_mib": None}
    jitted = jax.jit(form)
    if name == subjects.BRIDGE:
        jax.jit(subjects.bridge(total))(jnp.ones(8)).block_until_ready()
    values = jnp.ones(COUNT).block_until_ready()
    reset_peak()
    before = resident_mib()
    result = float(jitted(values))
    growth = resident_mib("VmHWM") - before
    assert result == COUNT, result
    return {"growth_mib": growth}


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1])))
