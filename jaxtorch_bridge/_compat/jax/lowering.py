"""What a program that is being lowered is told, and asked.

Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
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
