"""``out_specs``: one torch call for each shard of arrays on explicit mesh axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

from .._compat.jax.sharding import mesh_of
from ..errors import ShardingError
from ..jaxside.sharded_arrays import layouts_of


def mesh_and_axes(label: str, leaves: Sequence[Any], out_specs: Any) -> tuple[Any, frozenset[str]]:
    """The mesh, and its explicit axes along which the arguments or the results are cut.

    Raises:
        ShardingError: ``out_specs`` names an ``Auto`` axis.
    """
    # Whole arguments name no mesh; `out_specs` then speak of the one that is set.
    mesh = mesh_of(leaves) or jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return mesh, frozenset()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    cut = {axis for layout in layouts_of(leaves) for axes in layout for axis in axes}
    wanted = {axis for spec in _specs(out_specs) for entry in spec for axis in _axes(entry)}
    auto = sorted(axis for axis in wanted if kinds.get(axis) is AxisType.Auto)
    if auto:
        raise ShardingError(
            f"{label}, out_specs: expected axes of AxisType.Explicit; got {', '.join(auto)}, which "
            "are Auto, so that XLA would gather the arguments in silence. Make the mesh with "
            "axis_types=(jax.sharding.AxisType.Explicit, ...), or call under jax.shard_map."
        )
    explicit = {axis for axis in wanted if kinds.get(axis) is AxisType.Explicit}
    return mesh, frozenset(cut | explicit)


def call_per_shard(
    call: Callable[[list[Any]], Any],
    leaves: Sequence[Any],
    mesh: Any,
    axes: frozenset[str],
    out_specs: Any,
) -> Any:
    """Run ``call`` on each shard of the leaves; its results are put together by ``out_specs``."""
    spec_of: Any = PartitionSpec
    mapped: Any = jax.shard_map(
        lambda *shards: call(list(shards)),
        mesh=mesh,
        in_specs=tuple(
            spec_of(*(axes_ or None for axes_ in layout)) for layout in layouts_of(leaves)
        ),
        out_specs=out_specs,
        axis_names=set(axes),
    )
    return mapped(*leaves)


def shapes_of_shards(label: str, shapes: Any, out_specs: Any, mesh: Any) -> Any:
    """What one shard has of results of these shapes.

    Args:
        label: The function's name, for messages.
        shapes: A pytree of ``ShapeDtypeStruct``.
        out_specs: Partition specs, a prefix of that tree.
        mesh: What they speak of.

    Raises:
        ShardingError: A size is not divisible, or a spec is longer than a shape.
    """

    def one(shape: Any, spec: Any) -> Any:
        # In how many parts each dimension is cut; a spec may be shorter than the shape.
        counts = [math.prod(mesh.shape[axis] for axis in _axes(entry)) for entry in spec]
        counts += [1] * (len(shape.shape) - len(counts))
        # The second part is only reached with equal lengths, so that it need not be strict.
        if len(counts) != len(shape.shape) or any(
            size % count for size, count in zip(shape.shape, counts, strict=False)
        ):
            raise ShardingError(
                f"{label}, out_specs: expected sizes that {spec} divides over "
                f"{dict(mesh.shape)}; got an output of shape {tuple(shape.shape)}."
            )
        sizes = tuple(size // count for size, count in zip(shape.shape, counts, strict=True))
        return jax.ShapeDtypeStruct(sizes, shape.dtype)

    specs = jax.tree.broadcast(out_specs, shapes, is_leaf=_is_spec)
    return jax.tree.map(one, shapes, specs)


def _specs(out_specs: Any) -> Iterator[Any]:
    yield from jax.tree.leaves(out_specs, is_leaf=_is_spec)


def _is_spec(value: Any) -> bool:
    return isinstance(value, PartitionSpec)


def _axes(entry: Any) -> tuple[str, ...]:
    if entry is None:
        return ()
    return entry if isinstance(entry, tuple) else (entry,)
