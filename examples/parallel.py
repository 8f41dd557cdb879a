"""The training of digits.py over a mesh of devices, of one process or of many.

Each device calls torch with its own part of the batch. The parameters are the same everywhere:
JAX adds up their gradients, because the loss is a mean over the mesh.
"""

from __future__ import annotations

from typing import Any

import digits
import jax
import numpy as np
import optax
from digits import Params, TrainState
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"


def mesh_of_all_devices() -> Mesh:
    """All devices of all processes, along one axis."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def place(mesh: Mesh, spec: P, array: np.ndarray) -> jax.Array:
    """An array over the mesh. Each process has all of it, and its devices take their parts."""
    return jax.make_array_from_callback(
        array.shape, NamedSharding(mesh, spec), lambda index: array[index]
    )


def make_step(mesh: Mesh) -> Any:
    """A jitted update: each device differentiates on its part of the batch."""

    def step(
        state: TrainState, images: jax.Array, labels: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        def loss_fn(params: Params) -> jax.Array:
            return jax.lax.pmean(digits.loss_fn(params, images, labels), AXIS)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        updates, optimizer_state = digits.optimizer.update(
            grads, state.optimizer_state, state.params
        )
        return TrainState(optax.apply_updates(state.params, updates), optimizer_state), loss

    specs = (P(), P(AXIS), P(AXIS))
    mapped = jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=(P(), P()))
    return jax.jit(mapped, donate_argnums=0)


class ParallelTraining:
    """The training over a mesh; `digits.JaxTraining` is the same on one device."""

    def __init__(self, params: Params, mesh: Mesh) -> None:
        state = TrainState(params, digits.optimizer.init(params))
        self.state = jax.tree.map(lambda leaf: place(mesh, P(), np.asarray(leaf)), state)
        self._mesh = mesh
        self._step = make_step(mesh)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        parts = (place(self._mesh, P(AXIS), array) for array in (images, labels))
        self.state, loss = jax.block_until_ready(self._step(self.state, *parts))
        return float(loss)

    def predict(self, images: np.ndarray) -> np.ndarray:
        # On one device: every device has all the parameters.
        params = jax.tree.map(lambda leaf: leaf.addressable_data(0), self.state.params)
        return np.asarray(digits.digits_cnn(images, params).argmax(axis=1))
