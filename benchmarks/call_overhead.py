"""What one small call costs: jitted ``a + b`` on (10, 2) float32."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
import subjects
import torch
from report import ABOVE_NOOP, Row, Table, Target, at_most
from timing import Variant, fastest

SHAPE = (10, 2)
ALTERNATING = "FFI no-op, then torch eager"


def add(a: Any, b: Any) -> Any:
    return a + b


def measure() -> list[Table]:
    """Every way of calling ``add``, against the FFI no-op."""
    left = np.arange(20, dtype=np.float32).reshape(SHAPE)
    arrays = jax.numpy.asarray(left), jax.numpy.ones(SHAPE, jax.numpy.float32)
    tensors = torch.from_numpy(left), torch.ones(SHAPE)
    result = jax.ShapeDtypeStruct(SHAPE, jax.numpy.float32)
    noop = jax.jit(subjects.noop(result))

    def alternate() -> Any:
        add(*tensors)
        return noop(*arrays)

    forms = {
        subjects.BRIDGE: subjects.bridge(add),
        subjects.PEER: subjects.peer(add, *tensors),
        subjects.CALLBACK: subjects.callback(add, result),
        subjects.XLA: add,
    }
    variants: dict[str, Variant] = {
        subjects.NOOP: partial(noop, *arrays),
        subjects.TORCH: partial(add, *tensors),
        ALTERNATING: alternate,
    }
    for name, form in forms.items():
        if form is not None:
            jitted = jax.jit(form)
            subjects.check_same(add(*tensors), jitted(*arrays))
            variants[name] = partial(jitted, *arrays)
    # XLA runs programs this small on the thread that calls; waiting after each call would only
    # add the same microsecond to every variant.
    times = fastest(variants, seconds=20, wait=jax.block_until_ready)
    return [Table(f"Call overhead: jitted a + b, {SHAPE}", "us (min)", _rows(times), _notes())]


def _rows(times: dict[str, float]) -> list[Row]:
    above = {name: value - times[subjects.NOOP] for name, value in times.items()}
    # Torch eager alone makes no FFI call.
    del above[subjects.TORCH]
    peer_above = above.get(subjects.PEER)
    rows = []
    for name, value in times.items():
        beside = {ABOVE_NOOP: above[name]} if name in above else {}
        if name in above and peer_above is not None:
            beside["of the peer's"] = above[name] / peer_above
        rows.append(Row(name, value, beside, _targets(beside) if name == subjects.BRIDGE else ()))
    return rows


def _targets(beside: dict[str, float]) -> list[Target]:
    targets = [at_most(beside[ABOVE_NOOP], 5, "above no-op")]
    if "of the peer's" in beside:
        targets.append(at_most(beside["of the peer's"], 0.4, "of the peer's"))
    return targets


def _notes() -> list[str]:
    return [
        "'of the peer's' compares what each costs above the no-op.",
        f"'{ALTERNATING}': both in one Python function. Between JAX calls torch costs",
        "more than in a loop of its own, so this is about the least that a bridge can cost.",
        *subjects.peer_notes(),
    ]
