"""A program of ATen operations, run as JAX operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...planner.aten_program import AtenProgram, DtypeName, Ref, Step
from . import families as families
from .registry import CannotLowerError, Out, dtype_of, lowering_of


def run_steps(program: AtenProgram, arrays: Sequence[Any]) -> list[Any]:
    """Run on arrays of torch's dtypes, with 64-bit dtypes switched on.

    Raises:
        CannotLowerError: An operation has no lowering, or not for these arguments.
    """
    values: list[Any] = [*arrays, *map(_constant, program.constants)]
    for step in program.steps:
        values += _run(step, values)
    return [values[ref.index] for ref in program.outputs]


def _run(step: Step, values: Sequence[Any]) -> list[Any]:
    lower = lowering_of(step.op)
    if lower is None:
        raise CannotLowerError(f"aten.{step.op}{_at(step)}")
    outs = tuple(Out(sig.shape, dtype_of(sig.dtype)) for sig in step.results if sig.dtype != "none")
    given = [_argument(one, values) for one in step.args]
    named = {name: _argument(one, values) for name, one in step.kwargs}
    try:
        result = lower(outs if step.several else outs[0], *given, **named)
    except CannotLowerError as error:
        raise CannotLowerError(f"aten.{step.op}{_at(step)}: {error}") from error
    found = list(result) if step.several else [result]
    if len(found) != len(step.results):
        raise AssertionError(f"aten.{step.op}: {len(found)} results for {len(step.results)}")
    for one, sig in zip(found, step.results, strict=True):
        if sig.dtype == "none":
            continue
        if one.shape != sig.shape or one.dtype != dtype_of(sig.dtype):
            raise AssertionError(
                f"aten.{step.op}: {one.dtype}{list(one.shape)} for {sig.dtype}{list(sig.shape)}"
            )
    return found


def _at(step: Step) -> str:
    return f" ({step.place})" if step.place else ""


def _argument(value: Any, values: Sequence[Any]) -> Any:
    if isinstance(value, Ref):
        return values[value.index]
    if isinstance(value, DtypeName):
        return dtype_of(value.name)
    if isinstance(value, tuple):
        return tuple(_argument(one, values) for one in value)
    return value


def _constant(held: tuple[str, np.ndarray[Any, Any]]) -> jax.Array:
    name, array = held
    return jnp.asarray(array.view(dtype_of(name)) if name == "bfloat16" else array)
