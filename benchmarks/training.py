"""A training step: loss and gradients of a small MLP."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import subjects
import torch
from report import Row, Table, ratios
from timing import Variant, fastest, waiting

# (batch, features, hidden, outputs): one where calls dominate, one where arithmetic does.
SIZES = ((32, 16, 32, 4), (256, 256, 256, 16))
PARAMETERS = (0, 1, 2, 3)


def torch_loss(w1: Any, b1: Any, w2: Any, b2: Any, x: Any, y: Any) -> Any:
    hidden = torch.tanh(x @ w1 + b1)
    return ((hidden @ w2 + b2 - y) ** 2).mean()


def jax_loss(w1: Any, b1: Any, w2: Any, b2: Any, x: Any, y: Any) -> Any:
    hidden = jnp.tanh(x @ w1 + b1)
    return ((hidden @ w2 + b2 - y) ** 2).mean()


def measure() -> list[Table]:
    """One table a size."""
    return [_measure(size) for size in SIZES]


def _measure(size: tuple[int, int, int, int]) -> Table:
    batch, features, hidden, outputs = size
    shapes = [(features, hidden), (hidden,), (hidden, outputs), (outputs,)]
    shapes += [(batch, features), (batch, outputs)]
    random = np.random.default_rng(0)
    values = [random.normal(size=shape, scale=0.3).astype(np.float32) for shape in shapes]
    arrays = [jnp.asarray(value) for value in values]
    tensors = [torch.from_numpy(value) for value in values]
    parameters = [tensor.clone().requires_grad_() for tensor in tensors[: len(PARAMETERS)]]

    def torch_step() -> Any:
        loss = torch_loss(*parameters, *tensors[len(PARAMETERS) :])
        return loss.detach(), torch.autograd.grad(loss, parameters)

    variants: dict[str, Variant] = {subjects.TORCH: torch_step}
    forms = {
        subjects.BRIDGE: subjects.bridge(torch_loss),
        subjects.PEER: subjects.peer(torch_loss, *tensors),
        subjects.XLA: jax_loss,
    }
    for name, form in forms.items():
        if form is not None:
            step = jax.jit(jax.value_and_grad(form, argnums=PARAMETERS))
            subjects.check_same(torch_step(), step(*arrays))
            variants[name] = waiting(step, *arrays)
    times = fastest(variants, seconds=15)
    rows = [Row(name, value, ratios(name, times, subjects.OTHERS)) for name, value in times.items()]
    title = f"Training step: MLP {features}-{hidden}-{outputs}, batch {batch}, value_and_grad"
    return Table(title, "us (min)", rows, subjects.peer_notes())
