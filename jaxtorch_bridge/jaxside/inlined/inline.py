"""An op's program, written into the XLA program as JAX operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax

from ..._compat.jax.lowering import lowered_inline
from ...planner.aten_program import READS_TENSOR
from ..aten.registry import CannotLowerError, dtype_of
from ..aten.run_steps import Island, run_steps
from ..op_protocol import OpLike
from .islands import call_island
from .refusals import island_error, island_words


def lower_inline(
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
        assert op.aten is not None
        if no_torch:
            raise CannotLowerError(island_words(op.aten.steps[first], reasons[0]))
        steps = op.aten.steps[first:last]
        # Weights are in one place for all devices of a process.
        reads = all(step.op == READS_TENSOR for step in steps) and jax.process_count() == 1
        part = op.family.island(op, first, last)
        return call_island(context, part, taken, check=not steps[0].results, alike=reads)

    try:
        compare = (
            (lambda arrays: call_island(context, op.family.verifier(op), arrays, check=True))
            if verified
            else None
        )
        run = run_of(op, by_torch, compare)
        return cast(Sequence[Any], lowered_inline(run, context, operands))
    except CannotLowerError as error:
        raise op.refused(island_error(op, no_torch, str(error))) from error


def run_of(
    op: OpLike,
    island: Island,
    compare: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
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
