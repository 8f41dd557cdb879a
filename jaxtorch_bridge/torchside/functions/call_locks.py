"""How an op's calls, and those of its derivatives, get at what the function closes over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from ..closure.closure_state import ClosureState
from ..closure.function_identity import name_of
from ..closure.locks import Locks, generator_locks, locks_of
from ..inspection.reachable_objects import keys_of, memory_of
from ..observe.watched_run import Observed


@dataclass(frozen=True, eq=False)
class CallLocks:
    """What calls hold while they run the function's Python code.

    Captured graphs run none of it and hold nothing but ``lock``.

    Attributes:
        locks: Of all that the function closes over, in the way that its calls take them.
        draws: It may draw random numbers.
        memory_written: Memory that calls write to, as `memory_of` has it.
        lock: The caller's own, held by graphs too, and inside of all others.
    """

    locks: Locks
    draws: bool = False
    memory_written: frozenset[Any] = frozenset()
    lock: AbstractContextManager[Any] | None = None

    def around(self, run: Callable[..., Any], *, seeded: bool = False) -> Callable[..., Any]:
        """The function's own calls.

        Args:
            run: What runs.
            seeded: It seeds the generators, which others must not draw from meanwhile.
        """
        if self.memory_written:
            # Innermost: the copies are made before the next call may write.
            run = _with_own_results(run, self.memory_written)
        # Within the other locks: who waits for those must hold nothing that their holders may want.
        run = _under(self.lock, run)
        locks = self.locks
        # Those who only draw may do so side by side; who seeds must be alone.
        if self.draws or seeded:
            locks = locks | _generators(seeded)
        return locks.around(run)

    def around_program(
        self, run: Callable[..., Any], *, eager: bool, states: bool
    ) -> Callable[..., Any]:
        """Calls of what was derived.

        Args:
            run: What runs.
            eager: The function's Python code, not a graph.
            states: It seeds the generators, takes or gives their states, which others must not
                change meanwhile.
        """
        run = _under(self.lock, run)
        locks = self.locks if eager else Locks()
        if self.draws or states:
            locks = locks | _generators(states)
        return locks.around(run)


def _generators(alone: bool) -> Locks:
    found = generator_locks()
    return found.alone() if alone else found


NO_CALL_LOCKS = CallLocks(Locks())


def call_locks_of(
    closure: ClosureState,
    observed: Observed,
    *,
    exclusive: bool,
    draws: bool,
    owner: Callable[..., Any],
    lock: AbstractContextManager[Any] | None,
) -> CallLocks:
    """What calls of a function have to hold.

    Args:
        closure: What it closes over, as far as that can be told from the function.
        observed: What it was seen to use.
        exclusive: One call at a time.
        draws: It may draw random numbers.
        owner: The function; what is locked if it closes over nothing.
        lock: The caller's own.
    """
    seen = keys_of(observed.modules, tensors=[*observed.updated, *observed.read.values()])
    name = f"`{name_of(owner)}`"
    around = closure.words() or f"what {name} uses"
    locks = closure.locks | locks_of([*seen, *observed.everywhere], around)
    if exclusive:
        # Else there might be no lock at all that its calls could take.
        locks = (locks | locks_of([id(owner)], name)).alone()
    written = _written(closure, observed) if exclusive else frozenset()
    return CallLocks(locks, draws, written, lock)


def _written(closure: ClosureState, observed: Observed) -> frozenset[Any]:
    tensors: Iterable[torch.Tensor] = observed.updated
    if observed.untraced:
        # Nobody has seen what it writes to: it may be any of its modules' tensors.
        tensors = [tensor for part in closure.parts() for tensor in part.state_dict().values()]
    # None stands for layouts that have no memory of their own.
    return frozenset(memory_of(tensor) for tensor in tensors) - {None}


def _under(lock: AbstractContextManager[Any] | None, run: Callable[..., Any]) -> Callable[..., Any]:
    if lock is None:
        return run

    def run_under_lock(*tensors: torch.Tensor) -> Any:
        with lock:
            return run(*tensors)

    return run_under_lock


def _with_own_results(run: Callable[..., Any], written: frozenset[Any]) -> Callable[..., Any]:
    """Results that share memory with what the next call writes to are copied before it may."""

    def own(result: Any) -> Any:
        if isinstance(result, torch.Tensor) and memory_of(result) in written:
            return result.clone()
        return result

    def run_and_copy(*tensors: torch.Tensor) -> Any:
        result = run(*tensors)
        return [own(item) for item in result] if isinstance(result, (list, tuple)) else own(result)

    return run_and_copy
