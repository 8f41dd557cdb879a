"""Arrays sharded along explicit mesh axes: one torch call for each shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._compat.jax_internals import explicit_layout, mesh_of
from ..planner.sharding import Layout

Axes = Sequence[str | None]


def layouts_of(arrays: Sequence[Any]) -> list[Layout]:
    """Along which explicit mesh axes each array (or tracer) is sharded."""
    return [explicit_layout(array) for array in arrays]


def mesh_axes_of(arrays: Sequence[Any]) -> dict[str, int]:
    """The axes of the mesh that the arrays are sharded over, with their sizes."""
    mesh = mesh_of(arrays)
    return {} if mesh is None else dict(mesh.shape)


def call_per_shard(
    call: Callable[..., Sequence[Any]],
    arrays: Sequence[Any],
    inputs: Sequence[Axes],
    outputs: Sequence[Axes],
) -> list[Any]:
    """Run ``call`` on each shard, manual over just the axes named.

    Args:
        call: Flat arrays to flat results, of one shard.
        arrays: Whole.
        inputs: Of each array, the mesh axis of each dimension or None.
        outputs: Of each result, likewise.
    """
    axes = {axis for layout in (*inputs, *outputs) for axis in layout if axis is not None}
    spec_of: Any = jax.P
    mapped: Any = jax.shard_map(
        lambda *shards: tuple(call(*shards)),
        mesh=mesh_of(arrays),
        in_specs=tuple(spec_of(*layout) for layout in inputs),
        out_specs=tuple(spec_of(*layout) for layout in outputs),
        axis_names=axes,
    )
    return list(mapped(*arrays))
