"""The lock of an `Entry`, of which can be told who holds it and who waits for it."""

from __future__ import annotations

import threading

_waiting: dict[int, PlanningLock] = {}


class PlanningLock:
    """Reentrant, since a torch function may call a function again that is being planned."""

    __slots__ = ("_holder", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holder: list[int] = []

    def __enter__(self) -> None:
        me = threading.get_ident()
        if not self._lock.acquire(blocking=False):
            _waiting[me] = self
            try:
                self._lock.acquire()
            finally:
                del _waiting[me]
        self._holder.append(me)

    def __exit__(self, *_: object) -> None:
        self._holder.pop()
        self._lock.release()


def holder_before(thread: int) -> set[int]:
    """The thread whose planning another one waits for."""
    lock = _waiting.get(thread)
    return set() if lock is None else set(lock._holder[:1])
