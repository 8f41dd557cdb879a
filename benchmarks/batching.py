"""A batch in one call: ``jax.vmap`` over 256 of a matrix-vector product and a tanh."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import subjects
import torch
from report import Row, Table, at_most, ratios
from timing import Variant, fastest, waiting

BATCH, SIZE = 256, 64
TORCH_VMAP = "torch.vmap"
OTHERS = {"of torch.vmap's": TORCH_VMAP, "of the peer's": subjects.PEER}


def layer(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(w @ x)


def measure() -> list[Table]:
    """The matrix is shared, the vectors are batched; each result is waited for."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((SIZE, SIZE), np.float32) / SIZE
    x = rng.standard_normal((BATCH, SIZE), np.float32)
    tensors, arrays = (torch.from_numpy(w), torch.from_numpy(x)), (jnp.asarray(w), jnp.asarray(x))
    batched = torch.vmap(layer, (None, 0))
    forms = {
        subjects.BRIDGE: subjects.bridge(layer),
        subjects.PEER: subjects.peer(layer, tensors[0], tensors[1][0]),
        subjects.XLA: lambda w, x: jnp.tanh(w @ x),
    }
    variants: dict[str, Variant] = {TORCH_VMAP: lambda: batched(*tensors)}
    for name, form in forms.items():
        if form is not None:
            jitted = jax.jit(jax.vmap(form, (None, 0)))
            subjects.check_same(batched(*tensors), jitted(*arrays))
            variants[name] = waiting(jitted, *arrays)
    return [Table(_TITLE, "us (min)", _rows(fastest(variants, seconds=20)), subjects.peer_notes())]


_TITLE = f"Batch: jit(vmap) over {BATCH} of tanh(w @ x), w ({SIZE}, {SIZE}) shared"


def _rows(times: dict[str, float]) -> list[Row]:
    rows = []
    for name, value in times.items():
        beside: dict[str, Any] = ratios(name, times, OTHERS)
        limits = {"of torch.vmap's": 1.5, "of the peer's": 0.1}
        targets = [
            at_most(beside[what], limit, what) for what, limit in limits.items() if what in beside
        ]
        rows.append(Row(name, value, beside, targets if name == subjects.BRIDGE else ()))
    return rows
