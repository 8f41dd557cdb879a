"""How arrays are cut over the axes of a mesh, by their types.

Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import core as _core

from .arrays import ArrayImpl


def explicit_layout(array: Any) -> tuple[tuple[str, ...], ...]:
    """For each dimension of an array, tracer or shape, the explicit mesh axes it is sharded along.

    What ``Auto`` axes do is not known while tracing, and not told here.
    """
    sharding = _type_sharding(array)
    rank = len(array.shape)
    if sharding is None:
        return ((),) * rank
    found = [_as_axes(entry) for entry in sharding.spec]
    return (*found, *(((),) * (rank - len(found))))


def mesh_of(arrays: Sequence[Any]) -> Any:
    """The (abstract) mesh that the types of some arrays name; None if there is none."""
    for array in arrays:
        sharding = _type_sharding(array)
        if sharding is not None and any(explicit_layout(array)):
            return sharding.mesh
    return None


def manual_axes_of(mesh: Any) -> tuple[str, ...]:
    """The axes of a mesh of which the arrays are parts already, inside of `jax.shard_map`."""
    manual = jax.sharding.AxisType.Manual
    return tuple(
        axis for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind is manual
    )


def cut_by_xla(function: Callable[..., Any], mesh: Any, specs: Any) -> Callable[..., Any]:
    """``function``, in which XLA decides how arrays are cut, and not JAX by their types.

    Args:
        function: Of arrays.
        mesh: Along whose explicit axes they are cut.
        specs: How its results are, as a pytree of `jax.sharding.PartitionSpec`.
    """
    explicit = jax.sharding.AxisType.Explicit
    axes = tuple(
        axis
        for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind is explicit
    )
    layouts = jax.tree.map(
        lambda spec: jax.sharding.NamedSharding(mesh, spec),
        specs,
        is_leaf=lambda one: isinstance(one, jax.sharding.PartitionSpec),
    )
    run: Any = jax.sharding.auto_axes(function, axes=axes, out_sharding=layouts)
    found: Callable[..., Any] = run
    return found


def is_about_sharding(error: Exception) -> bool:
    """Whether JAX objects to how arrays are cut."""
    return isinstance(error, _core.ShardingTypeError)


def spec_of(aval: Any) -> Any:
    """How an abstract value is cut, as a `jax.sharding.PartitionSpec`."""
    return aval.sharding.spec


def _type_sharding(array: Any) -> Any:
    if isinstance(array, (_core.Tracer, ArrayImpl, _core.AbstractValue)):
        aval = array if isinstance(array, _core.AbstractValue) else jax.typeof(array)
        return getattr(aval, "sharding", None)
    found = getattr(array, "sharding", None)
    return found if isinstance(found, jax.sharding.NamedSharding) else None


def _as_axes(entry: Any) -> tuple[str, ...]:
    if entry is None or entry is jax.sharding.PartitionSpec.UNCONSTRAINED:
        return ()
    return tuple(entry) if isinstance(entry, (tuple, list)) else (entry,)
