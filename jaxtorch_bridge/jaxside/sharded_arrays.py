"""Arrays sharded along explicit mesh axes: one torch call for each shard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._compat.jax.primitive_rules import not_mapped
from .._compat.jax.sharding import explicit_layout, manual_axes_of, mesh_of
from ..planner.sharding import Layout, refuse_nested

Axes = Sequence[str | None]


def layouts_of(arrays: Sequence[Any]) -> list[Layout]:
    """Along which explicit mesh axes each array (or tracer) is sharded."""
    return [explicit_layout(array) for array in arrays]


def mesh_axes_of(arrays: Sequence[Any]) -> dict[str, int]:
    """The axes of the mesh that the arrays are sharded over, with their sizes."""
    mesh = mesh_of(arrays)
    return {} if mesh is None else dict(mesh.shape)


def call_per_shard(
    label: str,
    call: Callable[..., Sequence[Any]],
    arrays: Sequence[Any],
    inputs: Sequence[Axes],
    outputs: Sequence[Axes],
) -> list[Any]:
    """Run ``call`` on each shard, manual over just the axes named.

    Args:
        label: The callable's name, for messages.
        call: Flat arrays to flat results, of one shard.
        arrays: Whole.
        inputs: Of each array, the mesh axis of each dimension or None.
        outputs: Of each result, likewise.

    Raises:
        ShardingError: This is within a part of the mesh already.
    """
    axes = {axis for layout in (*inputs, *outputs) for axis in layout if axis is not None}
    _refuse_nested(label, sorted(axes), arrays)
    spec_of: Any = jax.P
    mapped: Any = jax.shard_map(
        lambda *shards: tuple(call(*shards)),
        mesh=mesh_of(arrays),
        in_specs=tuple(spec_of(*layout) for layout in inputs),
        out_specs=tuple(spec_of(*layout) for layout in outputs),
        axis_names=axes,
    )
    return list(mapped(*arrays))


def batch_axes(operands: Sequence[Any], dims: Sequence[Any]) -> tuple[str, ...]:
    """The explicit mesh axes along which a batch is sharded; none if it is whole."""
    for operand, dim in zip(operands, dims, strict=True):
        if dim is not not_mapped:
            # The first will do: JAX refuses batches whose arguments are sharded in different ways.
            axes = explicit_layout(operand)[dim]
            if axes:
                return axes
    return ()


def batch_per_shard(
    label: str,
    rule: Callable[..., Sequence[Any]],
    operands: Sequence[Any],
    dims: Sequence[Any],
    axes: tuple[str, ...],
    out_dims: Sequence[Any],
) -> list[Any]:
    """The results of a batching rule on each device's part of a batch sharded along ``axes``.

    Elements of a batch are independent, so that nothing has to be gathered for it.

    Raises:
        ShardingError: This is within a part of the mesh already.
    """
    _refuse_nested(label, axes, operands)
    entry = axes[0] if len(axes) == 1 else axes
    spec_of: Any = jax.P

    def spec(dim: Any) -> Any:
        # Other dimensions stay as they are: the map is manual over the batch's axes alone.
        return spec_of() if dim is not_mapped else spec_of(*([None] * dim), entry)

    mapped: Any = jax.shard_map(
        lambda *parts: tuple(rule(*parts)),
        mesh=mesh_of(operands),
        in_specs=tuple(map(spec, dims)),
        out_specs=tuple(map(spec, out_dims)),
        axis_names=set(axes),
    )
    return list(mapped(*operands))


def _refuse_nested(label: str, axes: Sequence[str], arrays: Sequence[Any]) -> None:
    # Seen with JAX 0.10, which cannot lower the gradients either. 0.12 gathered nothing where it
    # was tried; so this can go with 0.10.
    manual = manual_axes_of(mesh_of(arrays))
    if manual:
        raise refuse_nested(label, axes, manual)


def part_of(size: int, operands: Sequence[Any], axes: tuple[str, ...]) -> int:
    """How much of a batch one device has."""
    mesh = mesh_axes_of(operands)
    return size // math.prod(mesh[axis] for axis in axes)
