"""What a program that is being lowered is told, and asked.

Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax._src import core as _core
from jax._src import sharding_impls as _sharding_impls
from jax._src.lib import xla_client as _xla_client  # type: ignore[attr-defined]
from jax._src.lib.mlir.dialects import hlo as _hlo  # type: ignore[attr-defined]
from jax.interpreters import mlir


def watch_sharding(
    context: Any, value: Any, rank: int, callback: Callable[[tuple[int, ...]], None]
) -> None:
    """Have XLA say, when it has partitioned a program, into how many parts it cut an operand.

    As in `jax.debug.inspect_array_sharding`, an exception in ``callback`` fails the compilation.

    Args:
        context: Of a lowering rule.
        value: The operand.
        rank: Its number of dimensions.
        callback: Called with the number of parts of each dimension, if any is cut.
    """

    def tell(sharding: Any) -> None:
        # Whole, on one device, or cut by JAX itself (`shard_map`).
        if sharding.is_replicated() or sharding.is_manual() or sharding.is_maximal():
            return
        parts = tuple(sharding.tile_assignment_dimensions()[:rank])
        if any(count > 1 for count in parts):
            callback(parts)

    # No more than the address of `tell`: the module has to keep it alive.
    key = _xla_client.encode_inspect_sharding_callback(tell)
    context.module_context.add_keepalive(tell)
    _hlo.CustomCallOp(
        [value.type],
        [value],
        # The target of `jax.debug.inspect_array_sharding`, which XLA itself knows.
        call_target_name=mlir.ir.StringAttr.get("InspectSharding"),
        has_side_effect=mlir.ir.BoolAttr.get(True),
        api_version=mlir.i32_attr(1),
        called_computations=mlir.ir.ArrayAttr.get([]),
        backend_config=mlir.ir.StringAttr.get(key),
        operand_layouts=None,
        result_layouts=None,
    )


def lowered_inline(function: Callable[..., Any], context: Any, operands: Sequence[Any]) -> Any:
    """A function's own operations, in place of a call; it computes with 64-bit dtypes too."""
    with jax.enable_x64(True):
        return mlir.lower_fun(function, multiple_results=True)(context, *operands)


def is_exported(context: Any) -> bool:
    """Whether a program is being lowered for `jax.export`, so that it will leave the process."""
    return bool(context.module_context.lowering_parameters.for_export)


def cuts_are_left_to_xla(context: Any) -> bool:
    """Whether XLA decides how operands are cut: several devices, and ``Auto`` mesh axes."""
    if not is_partitioned(context):
        return False
    if isinstance(context.module_context.axis_context, _sharding_impls.SPMDAxisContext):
        return True
    meshes = [aval.sharding.mesh for aval in context.avals_in if hasattr(aval, "sharding")]
    auto = jax.sharding.AxisType.Auto
    return any(mesh.empty or auto in mesh.axis_types for mesh in meshes)


def is_partitioned(context: Any) -> bool:
    """Whether XLA makes programs for several devices of one, whoever decides how arrays are cut.

    It then refuses calls that have an effect: they would need a sharding of their own.
    """
    axis_context = context.module_context.axis_context
    if isinstance(axis_context, _sharding_impls.SPMDAxisContext):
        return bool(axis_context.manual_axes != frozenset(axis_context.mesh.axis_names))
    return bool(getattr(axis_context, "num_devices", 1) > 1)


def on_every_device(
    function: Callable[..., Sequence[Any]],
    context: Any,
    arrays: Sequence[Any],
    *,
    alike: bool = False,
) -> list[Any]:
    """Run ``function`` whole on each device of a program that XLA partitions.

    Its arrays are gathered. The results are those of the first device, also where devices find
    different ones: XLA takes them for one and the same array. In other programs, and on parts that
    `jax.shard_map` has made along all axes, it just runs.

    Args:
        function: Flat arrays to flat arrays, of which no axis of the mesh is told.
        context: Of the lowering rule that writes the program.
        arrays: Tracers of what it lowers.
        alike: All devices find the same, and need not be sent it.
    """
    if not is_partitioned(context):
        return list(function(*arrays))
    mesh: Any = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        # Arrays bring their own meshes, which may differ and are none of the program's.
        count = context.module_context.axis_context.num_devices
        kinds = (jax.sharding.AxisType.Auto,)
        mesh = jax.sharding.AbstractMesh((count,), ("devices",), axis_types=kinds)
    axes = tuple(name for name in mesh.axis_names if name not in mesh.manual_axes)

    def on_one(*whole: Any) -> tuple[Any, ...]:
        if alike:
            return tuple(function(*whole))
        is_first = jax.lax.axis_index(axes) == 0
        return tuple(_of_one(result, is_first, axes) for result in function(*whole))

    whole: Any = jax.P()
    run: Any = jax.shard_map(
        on_one, mesh=mesh, in_specs=whole, out_specs=whole, axis_names=set(axes)
    )
    # An eager `jax.vmap` along one of them, around the program, is none of the program's.
    with _core.remove_explicit_mesh_axis_names(frozenset(axes)):
        return list(run(*arrays))


def _of_one(array: Any, is_it: Any, axes: tuple[str, ...]) -> Any:
    """What one device has, on all of them, bit for bit."""
    if jax.numpy.iscomplexobj(array):
        parts = (_of_one(part, is_it, axes) for part in (array.real, array.imag))
        return jax.lax.complex(*parts)
    # Sums with zeros, which keep integers alone as they are: not NaNs, nor the sign of 0.
    bits = array.astype(jax.numpy.uint8) if array.dtype == bool else _bits_of(array)
    sent = jax.lax.psum(jax.numpy.where(is_it, bits, jax.numpy.zeros_like(bits)), axes)
    if array.dtype == bool:
        return sent.astype(bool)
    return jax.lax.bitcast_convert_type(sent, array.dtype)


def _bits_of(array: Any) -> Any:
    unsigned = jax.numpy.dtype(f"uint{8 * array.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(array, unsigned)


def keep_alive_with(context: Any, thing: Any) -> None:
    """Hold ``thing`` as long as the program that is being lowered in ``context``.

    Not for `jax.export`: an exported program leaves the process, and JAX refuses to serialise
    one that holds anything here.
    """
    if not is_exported(context):
        context.module_context.add_keepalive(thing)


def device_count_of(context: Any) -> int:
    """How many devices the program that is being lowered in ``context`` runs on."""
    found = context.module_context.axis_context
    mesh = getattr(found, "mesh", None)
    return int(getattr(found, "num_devices", 1) if mesh is None else mesh.size)
