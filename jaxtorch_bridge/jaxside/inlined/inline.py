"""An op's program, written into the XLA program as JAX operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import jax.numpy as jnp

from ..._compat.jax.lowering import is_partitioned, lowered_inline
from ...planner.sharding import refuse_no_results
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
        check = not op.aten.steps[first].results
        return call_island(op.family.island(op, first, last), taken, check=check)

    try:
        compare = (
            (lambda arrays: call_island(op.family.verifier(op), arrays, check=True))
            if verified
            else None
        )
        run = run_of(op, by_torch, compare, hold_back=is_partitioned(context))
        return cast(Sequence[Any], lowered_inline(run, context, operands))
    except CannotLowerError as error:
        raise op.refused(island_error(op, no_torch, str(error))) from error


def run_of(
    op: OpLike,
    island: Island,
    compare: Callable[[Sequence[Any]], Sequence[Any]] | None = None,
    *,
    hold_back: bool = False,
) -> Callable[..., list[Any]]:
    """What an op computes, as a function of JAX arrays in the dtypes that JAX holds.

    Args:
        op: With a program.
        island: See `run_steps`.
        compare: Is given what torch would be given, and the results that it would give, and gives
            what a check gives.
        hold_back: The results wait for what the checks give; see `call_island`.

    The function raises `ShardingError` if there are none to wait.
    """
    program = op.aten
    assert program is not None

    def run(*arrays: Any) -> list[Any]:
        seen = [
            array.astype(dtype_of(sig.torch_dtype))
            for array, sig in zip(arrays, op.inputs, strict=True)
        ]
        results, passed = run_steps(program, seen, island)
        if compare is not None:
            passed += compare([*seen[: len(program.inputs)], *results])
        if hold_back and passed:
            if not any(one.size for one in results):
                raise op.refused(refuse_no_results(op.label))
            # Not an `optimization_barrier`, which XLA takes out again before it drops dead calls.
            held = jnp.stack(passed).all()
            results = [jnp.where(held, one, jnp.zeros_like(one)) for one in results]
        return [
            result.astype(dtype_of(sig.dtype))
            for result, sig in zip(results, op.outputs, strict=True)
        ]

    return run
