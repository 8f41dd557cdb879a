"""From a torch op to what XLA compiles: a custom call, or JAX operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax

from .._compat.jax.lowering import is_exported, lowered_inline
from .._compat.jax.process import jit_is_disabled
from ..errors import PlanningError
from .aten.registry import CannotLowerError, dtype_of
from .aten.run_steps import Island, run_steps
from .custom_call import lower_custom_call
from .islands import call_island
from .op_protocol import OpLike
from .refused_islands import island_error, island_words, wide_float_error


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
        return _lower_inline(context, operands, op, no_torch=where)
    return _lower_inline(context, operands, op, no_torch=op.no_islands, verified=op.verified)


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
    return _lower_inline(context, operands, op, no_torch="a device that torch does not run on")


def _lower_inline(
    context: Any, operands: Sequence[Any], op: OpLike, *, no_torch: str, verified: bool = False
) -> Sequence[Any]:
    """The op as JAX operations.

    Args:
        context: Of the lowering rule.
        operands: Likewise.
        op: With such a program.
        no_torch: Where torch cannot run what has no lowering, in words; empty where it can.
        verified: Compare the results with torch's.

    Raises:
        PlanningError: It would have to.
    """

    def by_torch(first: int, last: int, taken: Sequence[Any], reasons: Sequence[str]) -> Any:
        if no_torch:
            assert op.aten is not None
            raise CannotLowerError(island_words(op.aten.steps[first], reasons[0]))
        return call_island(op.family.island(op, first, last), taken)

    try:
        compare = (lambda arrays: call_island(op.family.verifier(op), arrays)) if verified else None
        run = run_of(op, by_torch, compare)
        return cast(Sequence[Any], lowered_inline(run, context, operands))
    except CannotLowerError as error:
        raise op.refused(island_error(op, no_torch, str(error))) from error


def run_of(
    op: OpLike, island: Island, compare: Callable[[Sequence[Any]], Any] | None = None
) -> Callable[..., list[Any]]:
    """What an op computes, as a function of JAX arrays in the dtypes that JAX holds.

    Args:
        op: With a program.
        island: See `run_steps`.
        compare: Is given what torch would be given, and the results that it would give.
    """
    program = op.aten
    assert program is not None

    def run(*arrays: Any) -> list[Any]:
        seen = [
            array.astype(dtype_of(sig.torch_dtype))
            for array, sig in zip(arrays, op.inputs, strict=True)
        ]
        results = run_steps(program, seen, island)
        if compare is not None:
            compare([*seen[: len(program.inputs)], *results])
        return [
            result.astype(dtype_of(sig.dtype))
            for result, sig in zip(results, op.outputs, strict=True)
        ]

    return run


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
