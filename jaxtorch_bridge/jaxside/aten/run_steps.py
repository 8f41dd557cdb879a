"""A program of ATen operations, run as JAX operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...planner.aten_program import AtenProgram, DtypeName, Ref, Step
from .bounded.bounded_step import BoundedStep, Counts, is_bounded, rule_of
from .merged_rows import TAKES_ROWS, MergedRows, merged_rows
from .registry import CannotLowerError, Out, dtype_of, lowering_of, takes_key

# Runs the steps from the first number until before the second one by other means than JAX's
# operations, on the arrays that they take. The last is why. A check gives one boolean: it passed.
Island = Callable[[int, int, Sequence[Any], Sequence[str]], Sequence[Any]]


def run_steps(program: AtenProgram, arrays: Sequence[Any], island: Island) -> list[Any]:
    """Run on arrays of torch's dtypes, with 64-bit dtypes switched on.

    Args:
        program: What to run.
        arrays: Its inputs, and its key if it has one.
        island: Takes steps that have no lowering, as many at once as follow each other.

    Raises:
        CannotLowerError: From ``island``, or a random number is drawn in a way that JAX does not
            have.
    """
    # Here: a program without this backend starts without them. They fill the registry.
    from . import families as families

    run = _Run(program, arrays, island)
    return run.results()


class _Run:
    def __init__(self, program: AtenProgram, arrays: Sequence[Any], island: Island) -> None:
        self._program = program
        count = len(program.inputs)
        self._values: list[Any] = [*arrays[:count], *map(_constant, program.constants)]
        self._key = _key_of(arrays[count]) if program.keyed else None
        self._drawn = 0
        self._island = island
        self._counts = Counts(program.alike)
        # Steps that wait for those behind them, and why they have no lowering.
        self._waiting: list[str] = []

    def results(self) -> list[Any]:
        for number, step in enumerate(self._program.steps):
            lower = lowering_of(step.op)
            if is_bounded(step, self._program.sig_of):
                # Torch could not give an island such arrays to go on with.
                self._leave(number)
                self._values += self._lowered(step, lower)
                continue
            if lower is None and step.draws:
                raise CannotLowerError(f"{step.words}, which draws random numbers")
            if not step.results:
                self._leave(number)
                self._check(number)
                continue
            if lower is None:
                self._wait(step, "JAX has no such operation")
                continue
            self._leave(number)
            try:
                self._values += self._lowered(step, lower)
            except CannotLowerError as error:
                if step.draws:
                    raise CannotLowerError(f"{step.words}: {error}") from error
                self._wait(step, str(error))
        self._leave(len(self._program.steps))
        return [self._value(ref.index) for ref in self._program.outputs]

    def _check(self, number: int) -> None:
        """Alone: XLA drops a call whose results nobody reads, and must not drop a check."""
        takes = self._program.part(number, number + 1).takes
        taken = [self._value(index) for index in takes]
        reason = "it is a check"
        if self._program.steps[number].op == "_linalg_check_errors.default":
            reason += ", which torch.linalg.inv_ex, solve_ex and cholesky_ex do not make"
        self._island(number, number + 1, taken, [reason])

    def _wait(self, step: Step, reason: str) -> None:
        self._waiting.append(reason)
        self._values += [None] * len(step.results)

    def _leave(self, number: int) -> None:
        """Run what waits, which ends before this step."""
        if not self._waiting:
            return
        first = number - len(self._waiting)
        part = self._program.part(first, number)
        taken = [self._value(index) for index in part.takes]
        found = self._island(first, number, taken, self._waiting)
        for index, value in zip(part.gives, found, strict=True):
            self._values[index] = value
        self._waiting = []

    def _lowered(self, step: Step, lower: Callable[..., Any] | None) -> list[Any]:
        outs = tuple(
            Out(sig.shape, dtype_of(sig.dtype)) for sig in step.results if sig.dtype != "none"
        )

        def plain(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            if lower is None:
                raise CannotLowerError(f"{step.words}: JAX has no such operation")
            given = [self._next_key(step)] if takes_key(step.op) else []
            return lower(outs if step.several else outs[0], *given, *args, **kwargs)

        sig_of = self._program.sig_of
        bounded = is_bounded(step, sig_of)
        if lower is not None and step.op in TAKES_ROWS and not bounded:
            given = [
                self._values[one.index] if isinstance(one, Ref) else self._argument(one)
                for one in step.args
            ]
            rows = merged_rows(step, outs[0], lower, given)
            if rows is not None:
                return [rows]
        args = [self._argument(one) for one in step.args]
        kwargs = {name: self._argument(one) for name, one in step.kwargs}
        if bounded:
            call = BoundedStep(step, args, kwargs, sig_of, self._counts, plain)
            result = rule_of(step)(call)
        else:
            result = plain(args, kwargs)
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

    def _next_key(self, step: Step) -> Any:
        """For the next draw: the same in every graph of the function, which draw in one order."""
        if self._key is None:
            # As dropout by 0, or a leaky ReLU that is not trained.
            assert not step.draws, "planning refuses what draws without a key"
            return jax.random.key(0)
        self._drawn += 1
        return jax.random.fold_in(self._key, self._drawn - 1)

    def _value(self, index: int) -> Any:
        """An array, as anybody else but a product wants it."""
        value = self._values[index]
        if isinstance(value, MergedRows):
            value = self._values[index] = jnp.reshape(value.array, value.shape)
        return value

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return self._value(value.index)
        if isinstance(value, DtypeName):
            return dtype_of(value.name)
        if isinstance(value, tuple):
            return tuple(self._argument(one) for one in value)
        return value


def _key_of(words: Any) -> Any:
    """One of JAX's own keys from the words of any."""
    key = jax.random.wrap_key_data(words[:2], impl="threefry2x32")
    for word in range(2, words.shape[0]):
        key = jax.random.fold_in(key, words[word])
    return key


def _constant(held: tuple[str, np.ndarray[Any, Any]]) -> jax.Array:
    name, array = held
    return jnp.asarray(array.view(dtype_of(name)) if name == "bfloat16" else array)
