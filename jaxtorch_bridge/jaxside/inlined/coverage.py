"""How much of an op XLA runs itself, and what it leaves to torch and why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ..aten.registry import CannotLowerError, dtype_of
from ..aten.run_steps import Island
from ..op_protocol import OpLike
from .inline import run_of
from .refusals import island_error, island_words


@dataclass(frozen=True)
class Coverage:
    """What becomes of the operations of an op's graph.

    Attributes:
        operations: How many there are.
        by_torch: How many of them torch runs.
        islands: Calls of torch, each in words: operations, their lines, why.
    """

    operations: int
    by_torch: int = 0
    islands: tuple[str, ...] = ()

    @property
    def words(self) -> Iterator[str]:
        """Lines for `explain`."""
        count = self.operations - self.by_torch
        yield f"{count} of {self.operations} operations are JAX's"
        for one in self.islands:
            yield f"by torch: {one}"
        if self.islands:
            yield "arrays that XLA cuts over a mesh are gathered for it, and each device runs it"


def coverage_of(op: OpLike) -> Coverage:
    """What becomes of the operations of an op that XLA runs; nothing is run.

    Raises:
        PlanningError: It draws random numbers in a way that JAX does not have.
    """
    program = op.aten
    assert program is not None
    islands: list[str] = []
    counts: list[int] = []
    made = shapes_alone(op)

    def by_torch(first: int, last: int, taken: Sequence[Any], reasons: Sequence[str]) -> Any:
        steps = program.steps[first:last]
        words = (island_words(step, reason) for step, reason in zip(steps, reasons, strict=True))
        islands.append("; ".join(dict.fromkeys(words)))
        counts.append(len(steps))
        return made(first, last, taken, reasons)

    shapes = [jax.ShapeDtypeStruct(sig.shape, dtype_of(sig.dtype)) for sig in op.inputs]
    try:
        with jax.enable_x64(True):
            jax.eval_shape(run_of(op, by_torch), *shapes)
    except CannotLowerError as error:
        raise island_error(op, "", str(error)) from error
    return Coverage(len(program.steps), sum(counts), tuple(islands))


def shapes_alone(op: OpLike) -> Island:
    """What stands for calls of torch where an op is evaluated abstractly."""
    program = op.aten
    assert program is not None

    def nothing(first: int, last: int, taken: Sequence[Any], reasons: Sequence[str]) -> Any:
        if not program.steps[first].results:
            return [jnp.ones((), bool)]
        sigs = [program.sig_of(number) for number in program.part(first, last).gives]
        return [jnp.zeros(sig.shape, dtype_of(sig.dtype)) for sig in sigs]

    return nothing


def refuse_islands(op: OpLike, where: str) -> None:
    """Object to operations that torch would have to run.

    Raises:
        PlanningError: Names the first one, with the line of the user's code.
    """
    found = coverage_of(op)
    if found.islands:
        raise island_error(op, where, found.islands[0])
