"""The custom call by which an XLA program reaches torch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .._compat.jax.lowering import (
    cuts_are_left_to_xla,
    device_count_of,
    is_exported,
    is_partitioned,
    keep_alive_with,
    watch_sharding,
)
from ..planner.op_keys import double_error, exported_key, label_of_key
from ..planner.op_steps import steps_text
from ..planner.sharding import refuse_export, refuse_no_results, refuse_parts
from .ffi_targets import CALL_TARGET, RECORDED_TARGET, export_target
from .op_protocol import OpLike


def lower_custom_call(
    context: Any, *operands: Any, op: OpLike, check: bool = False
) -> Sequence[Any]:
    """The custom call of one op. Its attribute ``op`` is the key in the native table.

    The handle travels with the lowered program until an executable holds the op itself. A
    program for several devices says for how many: see `process_agreement`. One that is exported
    calls a target of the function's own name.

    Args:
        context: Of the lowering rule.
        operands: Likewise.
        op: What to call.
        check: See `call_island`.

    Raises:
        ExportError: The key of an exported call could mean another function as well.
        ShardingError: It gives no elements, and is in a program that XLA partitions.
    """
    # The native table only refers weakly: without this the op could go before XLA compiles.
    keep_alive_with(context, op.handle)
    if cuts_are_left_to_xla(context):
        _watch_operands(context, operands, op)
    target, key = (RECORDED_TARGET if op.is_recorded else CALL_TARGET), op.key
    extra: dict[str, Any] = {}
    if is_exported(context):
        if op.has_double:
            raise op.refused(double_error(op.label))
        # In a run of many processes all of them must get as far as the handler, which asks the
        # others; XLA itself refuses a target that it does not know.
        target = CALL_TARGET
        if jax.process_count() == 1:
            target = export_target(label_of_key(key))
        key, extra["exported"] = exported_key(key), np.int64(1)
        # Two texts: calls of one plan share the first, which is the longer one.
        extra["recipe"], extra["steps"] = op.recipe, steps_text(op.steps)
    devices = device_count_of(context)
    # Without this word the handler asks no other process, and a program for one device pays
    # nothing.
    if devices > 1:
        extra["devices"] = np.int64(devices)
    # Without an effect XLA may merge, drop and repeat calls. So whatever makes two calls differ, a
    # random key above all, must be an operand. Calls whose results are all empty it always drops,
    # and with them the handler's checks: these have an effect. So have those of which it may be so
    # for some sizes, in a program for all sizes.
    effect = check or all(_may_be_empty(sig.shape) for sig in op.outputs)
    if effect and is_partitioned(context):
        raise op.refused(refuse_no_results(op.label))
    lower = jax.ffi.ffi_lowering(
        target, has_side_effect=effect, operand_output_aliases=dict(op.aliases)
    )
    return lower(context, *operands, op=key, **extra)


def _may_be_empty(shape: Sequence[Any]) -> bool:
    return any(not isinstance(size, int) or size == 0 for size in shape)


def _watch_operands(context: Any, operands: Sequence[Any], op: OpLike) -> None:
    """Without this XLA would gather what it has cut, in silence."""
    if is_exported(context):
        raise refuse_export(op.label)
    for index, (operand, sig) in enumerate(zip(operands, op.inputs, strict=True)):
        refuse = functools.partial(_refuse_parts, op, index)
        watch_sharding(context, operand, len(sig.shape), refuse)


def _refuse_parts(op: OpLike, index: int, parts: tuple[int, ...]) -> None:
    """Called by XLA's partitioner."""
    raise op.refused(refuse_parts(op.label, op.inputs[index].path, parts))
