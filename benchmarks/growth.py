"""What stays: memory over 10,000 calls of 100 shapes, and ops after the callable is gone."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import subjects
from child import resident_mib, run_child
from report import Row, Table, Target

from jaxtorch_bridge.torchside.handler.native_module import op_keys

SHAPES = 100
ROUNDS = 100

EAGER = "bridge, eager"
JITTED = "bridge, jitted"


def scale_and_add(a: Any, b: Any) -> Any:
    return a * 2 + b


def measure() -> list[Table]:
    """Each variant in a process of its own."""
    found = {name: run_child(__file__, name) for name in (EAGER, JITTED, subjects.XLA)}
    memory = [
        Row(
            name,
            facts["calling_mib"],
            {"plans, MiB": facts["planning_mib"], "MiB a shape": facts["planning_mib"] / SHAPES},
        )
        for name, facts in found.items()
    ]
    ops = []
    for name in (EAGER, JITTED):
        facts = found[name]
        left = facts["ops_dropped"]
        ops.append(Row(f"{name}: callable alive", facts["ops_alive"]))
        ops.append(Row(f"{name}: dropped", left, targets=[Target("0", left == 0)]))
        ops.append(Row(f"{name}: dropped, jax.clear_caches()", facts["ops_cleared"]))
    calls = SHAPES * ROUNDS
    return [
        Table(
            f"Growth: {calls:,} calls over {SHAPES} shapes",
            "calls, MiB",
            memory,
            [
                "'plans': resident memory added by the first call of every shape, XLA's programs",
                "among it. 'calls': added by all the calls after that.",
            ],
        ),
        Table("Growth: entries in the op table", "ops", ops),
    ]


def _form(name: str) -> Callable[..., Any]:
    if name == subjects.XLA:
        return jax.jit(scale_and_add)
    form = subjects.bridge(scale_and_add)
    return form if name == EAGER else jax.jit(form)


def _child(name: str) -> dict[str, float]:
    # Code that is loaded at the first call of a process is not growth.
    _form(name)(jnp.ones(3), jnp.ones(3))
    jax.clear_caches()
    gc.collect()
    assert not op_keys(), op_keys()

    form = _form(name)
    arguments = [(jnp.ones((n, 4)), jnp.ones((n, 4))) for n in range(1, SHAPES + 1)]
    start = resident_mib()
    _call_all(form, arguments)
    planned = resident_mib()
    for _ in range(ROUNDS):
        _call_all(form, arguments)
    gc.collect()
    called = resident_mib()
    alive = len(op_keys())
    del form
    gc.collect()
    dropped = len(op_keys())
    jax.clear_caches()
    gc.collect()
    return {
        "planning_mib": planned - start,
        "calling_mib": called - planned,
        "ops_alive": alive,
        "ops_dropped": dropped,
        "ops_cleared": len(op_keys()),
    }


def _call_all(form: Callable[..., Any], arguments: list[tuple[Any, Any]]) -> None:
    for a, b in arguments:
        form(a, b).block_until_ready()


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1])))
