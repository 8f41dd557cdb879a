"""Exceptions on their way round JAX, which hands on no more than their text.

An exception holds the frames that it went through, and these hold the frames that called them, with
all their variables. So a thread's failures are forgotten when it meets another, when a call around
them ends, and when the thread has ended. Those of XLA's own threads are claimed by others: of
them only the newest few are kept.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .native_library import native_library

# How long another thread's collection is waited for.
_WAITS = 200
_WAIT_SECONDS = 1e-3


@dataclass(frozen=True, eq=False)  # an exception may answer `==` with an exception
class _Failure:
    text: str
    error: BaseException
    thread: int
    calls: int  # that the thread had ended by then
    xlas: bool


# The newest failures of all threads; eager calls look theirs up by its text.
_failures: deque[_Failure] = deque(maxlen=32)
# Finalizers run where an exception is dropped, and may call torch: nothing is dropped under it.
_lock = threading.RLock()


def record(text: str, error: BaseException) -> bool:
    """Keep an exception for `claim`.

    Returns:
        Whether one of this text waits to be claimed already.
    """
    calls, _, xlas = _calls_here()
    failure = _Failure(text, error, threading.get_ident(), calls, xlas)
    alive = {thread.ident for thread in threading.enumerate()}

    def is_old(other: _Failure) -> bool:
        if other.xlas:
            return False
        return other.thread not in alive or (other.thread == failure.thread and other.calls < calls)

    with _lock:
        known = any(other.text == text for other in _failures)
        old = _taken_out(is_old)
        if len(_failures) == _failures.maxlen:
            # Not left to the deque, which would drop it here, under the lock.
            old.append(_failures.popleft())
        _failures.append(failure)
    del old  # not under the lock
    return known


def claim(text: str) -> BaseException | None:
    """The exception whose words JAX's error ``text`` carries, taken out of the record.

    Of several with these words the one that this thread met.
    """
    here = threading.get_ident()
    with _lock:
        found = [failure for failure in reversed(_failures) if failure.text in text]
        if not found:
            return None
        # XLA's own threads meet failures that others ask for.
        mine = next((failure for failure in found if failure.thread == here), found[0])
        _failures.remove(mine)
    return mine.error


def collect(generation: int) -> int:
    """Let go of tensors that nobody can reach, among them those of calls within this one.

    Called when torch's work for a call ends. Whoever made a call within it has been told by now.
    """
    here, (calls, _, xlas) = threading.get_ident(), _calls_here()
    if not xlas:
        with _lock:
            old = _taken_out(lambda failure: failure.thread == here and failure.calls < calls)
        del old  # not under the lock
    return _collect(generation)


def _collect(generation: int) -> int:
    """As `gc.collect`, which does nothing while another thread is collecting."""
    before = gc.get_stats()[generation]["collections"]
    found = gc.collect(generation)
    for _ in range(_WAITS):
        if gc.get_stats()[generation]["collections"] != before:
            break
        time.sleep(_WAIT_SECONDS)
        found = gc.collect(generation)
    return found


def _taken_out(is_old: Callable[[_Failure], bool]) -> list[_Failure]:
    """What is old, out of the record; the caller drops it when it holds no lock."""
    old = [failure for failure in _failures if is_old(failure)]
    for failure in old:
        _failures.remove(failure)
    return old


def _calls_here() -> tuple[int, bool, bool]:
    found: tuple[int, bool, bool] = native_library().calls_here()
    return found
