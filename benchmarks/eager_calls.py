"""Eager calls against jitted ones: of the decorated function, and by the torch2jax interface."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import subjects
import torch
from report import Row, Table, at_most
from timing import Variant, fastest

from jaxtorch_bridge import compat


def add(a: Any, b: Any) -> Any:
    return a + b


def combine(a: Any, *, b: Any, mode: str) -> Any:
    return a + b if mode == "sum" else a - b


def both(arrays: dict[str, Any]) -> dict[str, Any]:
    return {"sum": arrays["a"] + arrays["b"], "difference": arrays["a"] - arrays["b"]}


def measure() -> list[Table]:
    """Eager over jitted: three ways of passing arguments, and the interface beside the peer's."""
    return [_decorated(), _interface()]


def _interface() -> Table:
    """``torch2jax(add, ...)`` of `jaxtorch_bridge.compat` and of the peer."""
    arrays, example = (jnp.ones((10, 2)), jnp.full((10, 2), 2.0)), torch.ones(10, 2)
    forms = {
        "compat": compat.torch2jax(add, example, example),
        "compat, output_shapes": compat.torch2jax(add, example, example, output_shapes=example),
        subjects.PEER: subjects.peer(add, example, example),
    }
    variants: dict[str, Variant] = {}
    for name, form in forms.items():
        if form is None:
            continue
        jitted = jax.jit(form)
        subjects.check_same(jitted(*arrays), form(*arrays))
        variants[f"{name}, jitted"] = partial(jitted, *arrays)
        variants[f"{name}, eager"] = partial(form, *arrays)
    times = fastest(variants, seconds=10, wait=jax.block_until_ready)
    rows = []
    for name, value in times.items():
        jitted_time = times[f"{name.rpartition(',')[0]}, jitted"]
        beside = {"of jitted": value / jitted_time} if name.endswith("eager") else {}
        rows.append(Row(name, value, beside))
    title = "Eager calls by the torch2jax interface, a + b, (10, 2)"
    return Table(title, "us (min)", rows, subjects.peer_notes())


def _decorated() -> Table:
    """The decorated function, called in three ways."""
    a, b = jnp.ones((10, 2)), jnp.full((10, 2), 2.0)
    eager_add, eager_both = subjects.bridge(add), subjects.bridge(both)
    eager_combine = subjects.bridge(combine)
    jitted_add = jax.jit(eager_add)
    jitted_combine = jax.jit(lambda a, *, b: eager_combine(a, b=b, mode="sum"))
    jitted_both = jax.jit(eager_both)
    arrays = {"a": a, "b": b}
    pairs: dict[str, tuple[Variant, Variant]] = {
        "f(a, b)": (lambda: eager_add(a, b), lambda: jitted_add(a, b)),
        'f(a, b=b, mode="sum")': (
            lambda: eager_combine(a, b=b, mode="sum"),
            lambda: jitted_combine(a, b=b),
        ),
        "f(dict) -> dict": (lambda: eager_both(arrays), lambda: jitted_both(arrays)),
    }
    variants: dict[str, Variant] = {}
    for name, (eager, jitted) in pairs.items():
        subjects.check_same(jitted(), eager())
        variants[f"{name}, eager"] = eager
        variants[f"{name}, jitted"] = jitted
    times = fastest(variants, seconds=15, wait=jax.block_until_ready)
    rows = []
    for name in pairs:
        eager_time, jitted_time = times[f"{name}, eager"], times[f"{name}, jitted"]
        ratio = eager_time / jitted_time
        target = at_most(ratio, 2, "of the jitted call")
        rows.append(Row(f"{name}, jitted", jitted_time))
        rows.append(Row(f"{name}, eager", eager_time, {"of jitted": ratio}, [target]))
    return Table("Eager calls of the decorated function, (10, 2)", "us (min)", rows)
