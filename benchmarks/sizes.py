"""A large call: jitted ``a + b`` on (1000, 1000) float32, where copies would show."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import subjects
import torch
from report import Row, Table, ratios
from timing import Variant, fastest, waiting

SHAPE = (1000, 1000)


def add(a: Any, b: Any) -> Any:
    return a + b


def measure() -> list[Table]:
    """Each result is waited for, call by call."""
    arrays = jnp.ones(SHAPE), jnp.full(SHAPE, 2.0)
    tensors = torch.ones(SHAPE), torch.full(SHAPE, 2.0)
    forms = {
        subjects.BRIDGE: subjects.bridge(add),
        subjects.PEER: subjects.peer(add, *tensors),
        subjects.XLA: add,
    }
    noop = jax.jit(subjects.noop(jax.ShapeDtypeStruct(SHAPE, jnp.float32)))
    variants: dict[str, Variant] = {
        subjects.TORCH: lambda: add(*tensors),
        subjects.NOOP: waiting(noop, *arrays),
    }
    for name, form in forms.items():
        if form is not None:
            jitted = jax.jit(form)
            subjects.check_same(add(*tensors), jitted(*arrays))
            variants[name] = waiting(jitted, *arrays)
    times = fastest(variants, seconds=15)
    rows = [Row(name, value, ratios(name, times, subjects.OTHERS)) for name, value in times.items()]
    notes = [
        "The no-op has its output allocated but writes nothing, so no page of it is touched.",
        *subjects.peer_notes(),
    ]
    return [Table(f"Size: jitted a + b, {SHAPE}", "us (min)", rows, notes)]
