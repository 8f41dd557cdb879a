"""Locks of what torch functions close over: many calls that read, or one that writes.

A lock belongs to things, not to a function: a module with all its parts, the memory of a tensor.
So two callables over one module share it. Which lock a thing has is settled when the first callable
asks for it, and stays so; a callable takes the locks of all its things, in one order for all
callables.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable
from types import CodeType, TracebackType
from typing import Any

from ...errors import ConcurrencyError

# How often a waiting thread looks around, and after how long it takes a holder that is itself
# inside of a JAX call for one that waits for us. Compiling may take long.
_LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 120.0


class ReadWriteLock:
    """Held by many threads that read or by one that writes. Reentrant.

    A thread that reads may begin to write once the other readers are gone. A waiting writer goes
    before new readers, or a busy module would never be planned again.

    Attributes:
        number: Locks are taken in the order of their numbers.
    """

    _numbers = itertools.count()

    def __init__(self) -> None:
        self.number = next(self._numbers)
        # Reentrant: the garbage collector may run a callable's finalizer anywhere.
        self._mutex = threading.RLock()
        self._changed = threading.Condition(self._mutex)
        self._readers: dict[int, int] = {}
        self._writer: int | None = None
        self._depth = 0
        self._waiting_writers = 0
        self._upgrading: int | None = None

    def acquire(self, exclusive: bool) -> None:
        """Begin to read, or to write.

        Raises:
            ConcurrencyError: It would wait for ever.
        """
        me = threading.get_ident()
        with self._mutex:
            if self._writer == me:
                self._depth += 1
            elif exclusive:
                self._begin_writing(me)
            else:
                readers = self._readers
                if me not in readers and (self._writer is not None or self._waiting_writers):
                    self._wait(lambda: self._writer is None and not self._waiting_writers)
                readers[me] = readers.get(me, 0) + 1

    def release(self) -> None:
        """End what this thread began last."""
        me = threading.get_ident()
        with self._mutex:
            if self._writer == me:
                self._depth -= 1
                if self._depth:
                    return
                self._writer = None
            elif self._readers[me] > 1:
                self._readers[me] -= 1
                return
            else:
                del self._readers[me]
            self._changed.notify_all()

    def _begin_writing(self, me: int) -> None:
        if me in self._readers:
            if self._upgrading is not None:
                raise ConcurrencyError(
                    "two calls that read a module both wait for the other to end, so that they can "
                    "write to it. Ask for `concurrency: locked` for the outer function."
                )
            self._upgrading = me
        self._waiting_writers += 1
        try:
            self._wait(lambda: self._writer is None and not self._readers.keys() - {me})
            self._writer, self._depth = me, 1
        finally:
            self._waiting_writers -= 1
            if self._upgrading == me:
                self._upgrading = None
            if self._writer != me:
                self._changed.notify_all()

    def _wait(self, free: Callable[[], bool]) -> None:
        waited = 0.0
        while not free():
            if self._changed.wait(_LOOK_SECONDS):
                continue
            waited += _LOOK_SECONDS
            if waited >= PATIENCE_SECONDS and self._held_from_inside_of_jax():
                raise ConcurrencyError(
                    f"waited {waited:.0f} s for a module that another thread's torch function "
                    "holds, and that function is itself inside of a JAX call. The two may wait "
                    "for each other: a torch function must not start a JAX program on other "
                    "devices or threads that calls the same module."
                )

    def _held_from_inside_of_jax(self) -> bool:
        frames = sys._current_frames()
        holders = set(self._readers) if self._writer is None else {self._writer}
        return any(_inside_of_jax(frames.get(holder)) for holder in holders)


def _inside_of_jax(frame: Any) -> bool:
    """Whether a thread's newest frames, down to the call that took the lock, are JAX's."""
    while frame is not None and frame.f_code is not _HOLDING:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "jax":
            return True
        frame = frame.f_back
    return False


class Locks:
    """Some locks, in the order in which they have to be taken, and how: (lock, exclusive)."""

    __slots__ = ("_held",)

    def __init__(self, held: Iterable[tuple[ReadWriteLock, bool]] = ()) -> None:
        modes: dict[ReadWriteLock, bool] = {}
        for lock, exclusive in held:
            modes[lock] = modes.get(lock, False) or exclusive
        self._held = tuple(sorted(modes.items(), key=lambda item: item[0].number))

    def __bool__(self) -> bool:
        return bool(self._held)

    def __or__(self, other: Locks) -> Locks:
        return Locks((*self._held, *other._held))

    def alone(self) -> Locks:
        """The same, to write."""
        return Locks((lock, True) for lock, _ in self._held)

    def shared(self) -> Locks:
        """The same, to read."""
        return Locks((lock, False) for lock, _ in self._held)

    def __enter__(self) -> None:
        taken: list[ReadWriteLock] = []
        try:
            for lock, exclusive in self._held:
                lock.acquire(exclusive)
                taken.append(lock)
        except BaseException:
            for lock in reversed(taken):
                lock.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for lock, _ in reversed(self._held):
            lock.release()

    def around(self, run: Callable[..., Any]) -> Callable[..., Any]:
        """The function, holding these while it runs."""
        return Holding(run, self) if self._held else run


class Holding:
    """A function that holds locks while it runs, and gives them back on every way out."""

    def __init__(self, run: Callable[..., Any], locks: Locks) -> None:
        self._run = run
        self._locks = locks

    def __call__(self, *tensors: Any) -> Any:
        """Wait, run, release."""
        with self._locks:
            return self._run(*tensors)


_HOLDING: CodeType = Holding.__call__.__code__

# From a thing to its lock. Callables own the locks; things are known by numbers that nothing else
# can have as long as a callable that closes over them is alive.
_locks: weakref.WeakValueDictionary[Hashable, ReadWriteLock] = weakref.WeakValueDictionary()
_guard = threading.RLock()


def locks_of(things: Iterable[Hashable]) -> Locks:
    """The locks of some things, to read; those without one get one together."""
    fresh: ReadWriteLock | None = None
    found = []
    with _guard:
        for thing in things:
            lock = _locks.get(thing)
            if lock is None:
                fresh = fresh or ReadWriteLock()
                lock = _locks[thing] = fresh
            found.append((lock, False))
    return Locks(found)


def generator_locks() -> Locks:
    """Of torch's random generators, whose states some calls take and put back."""
    return locks_of(("torch's generators",))
