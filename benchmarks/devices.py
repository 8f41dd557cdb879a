"""Many CPU devices in one process: calls on XLA's threads, torch's threads, what a second gains."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from child import run_child
from report import Row, Table, Target
from timing import in_turn

# Read by a child process before it imports jax.
FLAG = "--xla_force_host_platform_device_count="
THREADS = "threads"
STEP = "step"
CALLS = "calls"
SECONDS = 12.0
# One torch call a device: (rows, width) of what it multiplies, and how often.
CALL = (512, 512, 4)
# Small calls in one program, on each device: what a thread of XLA's needs to get into Python.
SMALL_CALLS = 200
# A transformer-sized block of dense layers: (rows in all, width, layers).
MODEL = (1024, 512, 4)


def measure() -> list[Table]:
    """Small calls, the thread budget, and a data-parallel training step."""
    return [_calls_table(), _thread_table(), _step_table()]


def _calls_table() -> Table:
    rounds = [run_child(__file__, CALLS, env=_devices(2)) for _ in range(3)]
    rows = []
    for name in rounds[0]:
        least = min(found[name] for found in rounds)
        rows.append(Row(name, least, {"us a call": least * 1e3 / SMALL_CALLS}))
    title = f"2 host devices, {SMALL_CALLS} calls of x + 1 on (8,) on each, one after another"
    return Table(title, "ms", rows, ["Least of 3 processes; in each the least of all runs."])


def _thread_table() -> Table:
    ways: dict[str, tuple[dict[str, str], str]] = {
        "thread budget (default)": ({}, "default"),
        "no budget": ({}, "off"),
        "no budget, set_num_threads(8)": ({}, "eight"),
        "no budget, OMP_NUM_THREADS=1": ({"OMP_NUM_THREADS": "1"}, "off"),
    }
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(3):
        for name, (env, budget) in ways.items():
            rounds[name].append(run_child(__file__, THREADS, budget, env={**_devices(8), **env}))
    rows = []
    for name, found in rounds.items():
        beside = {
            "OS threads": found[0]["threads"],
            "torch threads each": found[0]["each"],
            "CPU ms a call": min(one["cpu"] for one in found),
            "cores busy": max(one["cores"] for one in found),
        }
        rows.append(Row(name, min(one["ms"] for one in found), beside))
    note = "Least of 3 processes; in each the median. Cores busy: CPU time over time, at most."
    rows_, width, count = CALL
    title = f"8 host devices, {count} x tanh of ({rows_}, {width}) @ ({width}, {width}) on each"
    return Table(title, "ms a call", rows, [note])


def _step_table() -> Table:
    found = run_child(__file__, STEP, env=_devices(2))
    rows = []
    for name, (base, limit) in _GAINS.items():
        if name not in found["ms"]:
            continue
        beside = {"without waiting for a core": found["running_ms"][name]}
        targets = []
        if base:
            beside["1 device / this"] = gain = found["running_ms"][base] / beside[_RUNNING]
            targets = [Target(f"1 device / 2 >= {limit}", gain >= limit)] if limit else []
        rows.append(Row(name, found["ms"][name], beside, targets))
    notes = [
        f"Medians of {found['rounds']} interleaved rounds. `1 device` has the share of one, one "
        "torch thread; the last row has both cores already.",
        "Without waiting for a core: less the time that the busiest thread was ready to run and "
        "others had the cores, by Linux's own account.",
    ]
    batch, width, layers = MODEL
    title = f"Data-parallel step, {layers} dense layers of {width}, {batch} rows in all"
    return Table(title, "ms a step", rows, [*notes, *found["notes"]])


_RUNNING = "without waiting for a core"
_BOTH = "bridge, plain jit, 2 torch threads"
# Row to what it is compared with, and the gain aimed at.
_GAINS: dict[str, tuple[str, float]] = {
    "bridge, 1 device": ("", 0),
    "bridge, 2 devices": ("bridge, 1 device", 1.6),
    "wrap-torch2jax, 1 device": ("", 0),
    "wrap-torch2jax, 2 devices": ("wrap-torch2jax, 1 device", 0),
    _BOTH: ("bridge, 1 device", 0),
}


def _devices(count: int) -> dict[str, str]:
    return {"XLA_FLAGS": FLAG + str(count)}


def _calls() -> dict[str, float]:
    import jax
    import jax.numpy as jnp
    import subjects
    from jax.sharding import PartitionSpec as P

    def add_one(x: Any) -> Any:
        return x + 1

    mesh = jax.make_mesh((2,), ("d",))
    x = jax.device_put(jnp.zeros(8), jax.sharding.NamedSharding(mesh, P()))
    forms = {
        subjects.BRIDGE: subjects.bridge(add_one),
        subjects.NOOP: subjects.noop(jax.ShapeDtypeStruct(x.shape, x.dtype)),
    }
    variants: dict[str, Callable[[], Any]] = {}

    def add(name: str, form: Any) -> None:
        def loop(x: Any) -> Any:
            return jax.lax.fori_loop(0, SMALL_CALLS, lambda _, x: form(x), x)

        spread = jax.shard_map(loop, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
        program = jax.jit(spread)
        variants[name] = lambda: jax.block_until_ready(program(x))

    for name, form in forms.items():
        add(name, form)
    times, _ = _time(variants, SECONDS / 4)
    return {name: min(values) * 1e3 for name, values in times.items()}


def _threads(budget: str) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import torch
    from jax.sharding import AxisType
    from jax.sharding import PartitionSpec as P

    from jaxtorch_bridge import jax_callable
    from jaxtorch_bridge.torchside.handler import thread_counts as threads

    if budget == "eight":
        torch.set_num_threads(8)  # more than there are cores, as on machines that are shared
    if budget != "default":
        threads.openmp = lambda: None  # as where torch has no OpenMP
    rows, width, count = CALL
    seen = set()

    def chain(x: Any, w: Any) -> Any:
        if type(x) is torch.Tensor:
            seen.add(torch.get_num_threads())
        for _ in range(count):
            x = torch.tanh(x @ w)
        return x

    f = jax_callable(chain)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    step = jax.jit(
        jax.shard_map(lambda x, w: f(x, w), mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"))
    )
    spread = jax.sharding.NamedSharding(mesh, P("d"))
    x = jax.device_put(jnp.ones((8 * rows, width)), spread)
    w = jax.device_put(jnp.ones((width, width)) / width, jax.sharding.NamedSharding(mesh, P()))
    jax.block_until_ready(step(x, w))
    begun, used = time.perf_counter(), time.process_time()
    times, _ = _time({"": lambda: jax.block_until_ready(step(x, w))}, SECONDS / 2)
    begun, used = time.perf_counter() - begun, time.process_time() - used
    return {
        "ms": statistics.median(times[""]) * 1e3,
        "cpu": used / (len(times[""]) + 1) * 1e3,
        "cores": used / begun,
        "threads": len(os.listdir("/proc/self/task")),
        "each": max(seen),
    }


def _step() -> dict[str, Any]:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import subjects
    import torch
    from jax.sharding import AxisType
    from jax.sharding import PartitionSpec as P

    batch, width, layers = MODEL
    random = np.random.default_rng(0)
    weights = [
        (random.standard_normal((width, width)) / width**0.5).astype(np.float32)
        for _ in range(layers)
    ]
    x = random.standard_normal((batch, width)).astype(np.float32)

    def loss(weights: Any, x: Any) -> Any:
        for weight in weights:
            x = torch.nn.functional.gelu(x @ weight)
        return (x**2).mean()

    tensors = [torch.from_numpy(weight) for weight in weights]
    variants: dict[str, Callable[[], Any]] = {}

    def add(name: str, devices: int, form: Any) -> None:
        mesh = jax.make_mesh(
            (devices,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
        )

        def shard(weights: Any, x: Any) -> Any:
            value, gradients = jax.value_and_grad(form)(weights, x)
            return jax.lax.psum((value, gradients), "d")

        step = jax.jit(
            jax.shard_map(shard, mesh=mesh, in_specs=(P(), P("d")), out_specs=P(), check_vma=False)
        )
        everywhere = jax.sharding.NamedSharding(mesh, P())
        held = jax.device_put([jnp.asarray(weight) for weight in weights], everywhere)
        rows = jax.device_put(jnp.asarray(x), jax.sharding.NamedSharding(mesh, P("d")))
        jax.block_until_ready(step(held, rows))
        variants[name] = lambda: jax.block_until_ready(step(held, rows))

    for count in (1, 2):
        example = (tensors, torch.from_numpy(x[: batch // count]))
        forms = {
            subjects.BRIDGE: subjects.bridge(loss),
            subjects.PEER: subjects.peer(loss, *example),  # type: ignore[arg-type]
        }
        for kind, form in forms.items():
            if form is not None:
                add(f"{kind}, {count} device{'s' if count > 1 else ''}", count, form)
    # A plain jit runs torch on this very thread, with as many threads as torch takes by itself.
    single = jax.jit(jax.value_and_grad(subjects.bridge(loss)))
    arrays = [jnp.asarray(weight) for weight in weights], jnp.asarray(x)
    jax.block_until_ready(single(*arrays))
    variants[_BOTH] = lambda: jax.block_until_ready(single(*arrays))
    times, running = _time(variants, 3 * SECONDS)
    return {
        "ms": {name: statistics.median(values) * 1e3 for name, values in times.items()},
        "running_ms": {name: statistics.median(values) * 1e3 for name, values in running.items()},
        "rounds": len(times[_BOTH]),
        "notes": subjects.peer_notes(),
    }


def _time(
    variants: dict[str, Callable[[], Any]], seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each call, in turn; the same without waiting for a core."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    running: dict[str, list[float]] = {name: [] for name in variants}
    for call in variants.values():
        call()
    for name in in_turn(variants, seconds=seconds):
        before, start = _delays(), time.perf_counter()
        variants[name]()
        taken = time.perf_counter() - start
        times[name].append(taken)
        running[name].append(taken - _delay_on_the_way(before, _delays(), taken))
    return times, running


def _delays() -> dict[str, tuple[int, int]]:
    """Of each thread, nanoseconds that it ran, and that it was ready but had no core."""
    found = {}
    for thread in Path("/proc/self/task").iterdir():
        ran, waited, _ = (thread / "schedstat").read_text().split()
        found[thread.name] = int(ran), int(waited)
    return found


def _delay_on_the_way(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], taken: float
) -> float:
    """Seconds that the threads which the call waits for had no core.

    Threads that together filled less than the call took turns at it, and their delays add up;
    beside a thread that worked all the time the others' do not count.
    """
    spent = sorted(
        (
            tuple(
                new - old
                for new, old in zip(after[thread], before.get(thread, (0, 0)), strict=True)
            )
            for thread in after
        ),
        reverse=True,
    )
    delay, filled = 0.0, 0.0
    for ran, waited in spent:
        if filled + (ran + waited) / 1e9 > taken * 1.02:
            continue
        filled += (ran + waited) / 1e9
        delay += waited / 1e9
    return delay


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    parts = {CALLS: _calls, THREADS: _threads, STEP: _step}
    print(json.dumps(parts[sys.argv[1]](*sys.argv[2:])))
