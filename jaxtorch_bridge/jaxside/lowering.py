"""From a torch op to the custom call that XLA compiles."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np

from .._compat.jax.lowering import (
    cuts_are_left_to_xla,
    device_count_of,
    is_exported,
    keep_alive_with,
    lowered_inline,
    watch_sharding,
)
from .._compat.jax.process import jit_is_disabled
from ..errors import PlanningError
from ..planner.op_keys import double_error, exported_key, label_of_key
from ..planner.op_steps import steps_text
from ..planner.sharding import refuse_export, refuse_parts
from .aten.registry import CannotLowerError, dtype_of
from .aten.run_steps import run_steps
from .ffi_targets import CALL_TARGET, export_target
from .op_protocol import OpLike


def lower_call(context: Any, *operands: Any, op: OpLike) -> Sequence[Any]:
    """The custom call of one op. Its attribute ``op`` is the key in the native table.

    The handle travels with the lowered program until an executable holds the op itself. A
    program for several devices says for how many: see `process_agreement`. One that is exported
    calls a target of the function's own name.

    Raises:
        ExportError: The key of an exported call could mean another function as well.
    """
    if op.aten is not None:
        return _lower_inline(context, operands, op)
    # The native table only refers weakly: without this the op could go before XLA compiles.
    keep_alive_with(context, op.handle)
    if cuts_are_left_to_xla(context):
        _watch_operands(context, operands, op)
    target, key = CALL_TARGET, op.key
    extra: dict[str, Any] = {}
    if is_exported(context):
        if op.has_double:
            raise op.refused(double_error(op.label))
        # In a run of many processes all of them must get as far as the handler, which asks the
        # others; XLA itself refuses a target that it does not know.
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
    # and with them the handler's checks: these have an effect.
    checks_alone = all(0 in sig.shape for sig in op.outputs)
    lower = jax.ffi.ffi_lowering(
        target, has_side_effect=checks_alone, operand_output_aliases=dict(op.aliases)
    )
    return lower(context, *operands, op=key, **extra)


def lower_without_torch(context: Any, *operands: Any, op: OpLike) -> Sequence[Any]:
    """The op as JAX operations, where torch does not run.

    Raises:
        PlanningError: The op is a call of torch.
    """
    if op.aten is None:
        raise op.refused(
            PlanningError(
                f"{op.label}: expected a CPU or a CUDA device, where torch runs, or a function "
                "that XLA runs: say backend='xla', or `execution: {backend: xla}` in its contract."
            )
        )
    return _lower_inline(context, operands, op)


def _lower_inline(context: Any, operands: Sequence[Any], op: OpLike) -> Sequence[Any]:
    """The op as JAX operations.

    Raises:
        PlanningError: One of torch's operations has no counterpart here.
    """
    assert op.aten is not None
    program = op.aten

    def run(*arrays: Any) -> list[Any]:
        seen = [
            array.astype(dtype_of(sig.torch_dtype))
            for array, sig in zip(arrays, op.inputs, strict=True)
        ]
        return [
            result.astype(dtype_of(sig.dtype))
            for result, sig in zip(run_steps(program, seen), op.outputs, strict=True)
        ]

    try:
        return cast(Sequence[Any], lowered_inline(run, context, operands))
    except CannotLowerError as error:
        raise op.refused(
            PlanningError(
                f"{op.label}: expected operations that JAX has as well, as `backend: xla` says; "
                f"got {error}. Say `eager` or `graph`."
            )
        ) from error


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


def jitted(op: OpLike, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled form of ``function``, kept as long as somebody can call the op."""
    # Owned by the plan, and weak from the op: compiled forms refer to the op, and a strong
    # reference back would keep both for ever.
    keeper = op.keeper
    found: Callable[..., Any] | None = None if keeper is None else keeper.get(name)
    if found is None:
        found = jax.jit(function)
        if keeper is not None:
            keeper[name] = found
    return _always_compiled(found) if jit_is_disabled() else found


def _always_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Only a compiled program reaches the handler, also under `jax.disable_jit`."""

    def call(*arrays: Any) -> Any:
        with jax.disable_jit(False):
            return function(*arrays)

    return call
