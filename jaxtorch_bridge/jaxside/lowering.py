"""From a torch op to what XLA compiles: a custom call, or JAX operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._compat.jax.lowering import is_exported
from .._compat.jax.process import jit_is_disabled
from ..errors import PlanningError
from .custom_call import lower_custom_call
from .inlined.inline import lower_inline
from .inlined.refusals import wide_float_error
from .op_protocol import OpLike


def lower_call(context: Any, *operands: Any, op: OpLike) -> Sequence[Any]:
    """The op for a device where torch runs.

    Raises:
        ExportError: See `lower_custom_call`.
        PlanningError: See `lower_without_torch`, for a program that is exported.
    """
    if op.aten is None:
        return lower_custom_call(context, *operands, op=op)
    if is_exported(context):
        where = "a program for elsewhere, which is to run without torch"
        return lower_inline(context, operands, op, no_torch=where)
    return lower_inline(context, operands, op, no_torch=op.no_islands, verified=op.verified)


def lower_without_torch(context: Any, *operands: Any, op: OpLike) -> Sequence[Any]:
    """The op as JAX operations, where torch does not run.

    Raises:
        PlanningError: The op is a call of torch, or has one among its operations, or computes in
            float64.
    """
    if op.aten is None:
        raise op.refused(
            PlanningError(
                f"{op.label}: expected a CPU or a CUDA device, where torch runs, or a function "
                "that XLA runs: say backend='xla', or `execution: {backend: xla}` in its contract."
            )
        )
    wide = wide_float_error(op)
    if wide is not None:
        raise op.refused(wide)
    return lower_inline(context, operands, op, no_torch="a device that torch does not run on")


def jitted(op: OpLike, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled program of ``function``, kept as long as somebody can call the op."""
    # Owned by the plan, and weak from the op: compiled programs refer to the op, and a strong
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
