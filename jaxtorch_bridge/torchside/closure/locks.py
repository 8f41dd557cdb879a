"""Locks of what torch functions close over: many calls that read, or one that changes.

A lock belongs to things, not to a function: a module with all its parts, the memory of a tensor.
So two callables over one module share it. Which lock a thing has is settled when the first callable
asks for it, and stays so. A call takes the locks of all its things at once; while it waits for one
it has taken none.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from ...errors import ConcurrencyError

_logger = logging.getLogger("jaxtorch_bridge")
# After how long a wait is told of. Compiling may take as long, so it is no error.
_TOLD_SECONDS = 60.0

# Threads that hold locks, with what they took in order, and those that wait, the first one first.
# All of it is looked at and changed under one mutex, which is reentrant: the garbage collector may
# run a callable's finalizer anywhere.
_changed = threading.Condition(threading.RLock())
_holding: dict[int, list[Locks]] = {}
_waiting: dict[int, Locks] = {}


class Lock:
    """Stands for some things; who holds it is written down in one place for all.

    Attributes:
        name: Of the things, for messages.
    """

    __slots__ = ("__weakref__", "name")

    def __init__(self, name: str = "") -> None:
        self.name = name


class Locks:
    """Some locks, and of each whether it is taken alone, to change things, or with other readers.

    Reentrant. Who reads may begin to change things once the other readers are gone.
    """

    __slots__ = ("_alone",)

    def __init__(self, held: Iterable[tuple[Lock, bool]] = ()) -> None:
        self._alone: dict[Lock, bool] = {}
        for lock, alone in held:
            self._alone[lock] = self._alone.get(lock, False) or alone

    def __bool__(self) -> bool:
        return bool(self._alone)

    def __or__(self, other: Locks) -> Locks:
        return Locks((*self._alone.items(), *other._alone.items()))

    def alone(self) -> Locks:
        """The same, to change things."""
        return Locks((lock, True) for lock in self._alone)

    def __enter__(self) -> None:
        """Take all of them.

        Raises:
            ConcurrencyError: Another thread waits for this one in turn.
        """
        me = threading.get_ident()
        with _changed:
            if self._in_the_way(me):
                self._wait(me)
            _holding.setdefault(me, []).append(self)

    def __exit__(self, *_: object) -> None:
        me = threading.get_ident()
        with _changed:
            # `with` blocks nest, so it is this one that was taken last.
            _holding[me].pop()
            if not _holding[me]:
                del _holding[me]
            _changed.notify_all()

    def around(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function, holding these while it runs."""
        if not self:
            return run

        def run_holding(*tensors: Any) -> Any:
            with self:
                return run(*tensors)

        return run_holding

    def _excludes(self, other: Locks) -> bool:
        return any(
            alone or other._alone[lock]
            for lock, alone in self._alone.items()
            if lock in other._alone
        )

    def _in_the_way(self, me: int) -> set[int]:
        """The threads that have to give something back first."""
        found = {
            thread
            for thread, taken in _holding.items()
            if thread != me and any(self._excludes(locks) for locks in taken)
        }
        # One after the other, or a busy module would never be planned again. But nobody waits
        # his turn with something in hand that those before him may wait for.
        if me not in _holding:
            for thread, wanted in _waiting.items():
                if thread == me:
                    break
                if self._excludes(wanted):
                    found.add(thread)
        return found

    def _wait(self, me: int) -> None:
        _waiting[me] = self
        try:
            # Who closes a circle is the last to wait: nobody before him can have seen it.
            self._refuse_circle(me)
            if not _changed.wait_for(lambda: not self._in_the_way(me), _TOLD_SECONDS):
                _logger.warning(
                    "A call has waited %.0f s for %s, in use by torch functions on other threads. "
                    "If this never ends, one of these waits for this thread inside of a JAX call: "
                    "see docs/devices.md, Locks.",
                    _TOLD_SECONDS,
                    self._waited_for(me),
                )
                _changed.wait_for(lambda: not self._in_the_way(me))
        finally:
            del _waiting[me]
            # Those that came later stood behind this one.
            _changed.notify_all()

    def _waited_for(self, me: int) -> str:
        held = [lock for thread in self._in_the_way(me) for lock in _locks_held_by(thread)]
        names = [lock.name for lock in self._alone if lock in held] or [
            lock.name
            for lock in self._alone  # not its turn yet
        ]
        return " and ".join(dict.fromkeys(filter(None, names))) or "what a function closes over"

    def _refuse_circle(self, me: int) -> None:
        seen: set[int] = set()
        found = self._in_the_way(me)
        while found:
            thread = found.pop()
            if thread == me:
                raise ConcurrencyError(
                    "two torch functions wait for each other: each uses a module (or torch's "
                    "generators) and calls a JAX function that is to change what the other uses. "
                    "Ask for `concurrency: locked` for the outer functions, so that they run one "
                    "after the other."
                )
            # Who does not wait goes on by himself, and gives back what he holds.
            if thread in _waiting and thread not in seen:
                seen.add(thread)
                found |= _waiting[thread]._in_the_way(thread)


# From a thing to its lock. Callables own the locks; things are known by numbers that nothing else
# can have as long as a callable that closes over them is alive.
_locks: weakref.WeakValueDictionary[Hashable, Lock] = weakref.WeakValueDictionary()


def holders_before(thread: int) -> set[int]:
    """The threads that a thread waits for, which hold what it wants."""
    with _changed:
        wanted = _waiting.get(thread)
        return set() if wanted is None else wanted._in_the_way(thread)


def _locks_held_by(thread: int) -> list[Lock]:
    return [lock for locks in _holding.get(thread, ()) for lock in locks._alone]


def locks_of(things: Iterable[Hashable], name: str = "") -> Locks:
    """The locks of some things, to read; those without one get one together.

    Args:
        things: What tells them apart.
        name: What to call them in messages.
    """
    fresh: Lock | None = None
    found = []
    with _changed:
        for thing in things:
            lock = _locks.get(thing)
            if lock is None:
                fresh = fresh or Lock(name)
                lock = _locks[thing] = fresh
            found.append((lock, False))
    return Locks(found)


def generator_locks() -> Locks:
    """Of torch's random generators, whose states some calls take and put back."""
    return locks_of(("torch's generators",), "torch's random generators")
