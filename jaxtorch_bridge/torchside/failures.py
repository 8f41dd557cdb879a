"""Exceptions on their way round JAX, which hands on no more than their text.

An exception holds the frames that it went through, and these hold the frames that called them, with
all their variables: so it is kept no longer than somebody may ask for it.
"""

from __future__ import annotations

import gc
import threading
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True)
class _Failure:
    text: str
    error: BaseException
    thread: int
    calls: int  # that this thread had ended by then


# The newest failures of all threads; eager calls look theirs up by its text.
_failures: deque[_Failure] = deque(maxlen=32)
_lock = threading.Lock()


def record(text: str, error: BaseException) -> bool:
    """Keep an exception for `claim`.

    Returns:
        Whether one of this text waits to be claimed already.
    """
    failure = _Failure(text, error, threading.get_ident(), _calls_here())
    with _lock:
        known = any(other.text == text for other in _failures)
        if failure.thread == threading.main_thread().ident:
            _forget_older(failure.thread, failure.calls)
        _failures.append(failure)
        return known


def claim(text: str) -> BaseException | None:
    """The exception whose words JAX's error ``text`` carries, taken out of the record."""
    with _lock:
        for failure in reversed(_failures):
            if failure.text in text:
                _failures.remove(failure)
                return failure.error
    return None


def collect(generation: int) -> int:
    """Let go of tensors that nobody can reach, among them those of calls within this one.

    Called when torch's work for a call ends. Whoever made a call within it has been told by now.
    """
    with _lock:
        _forget_older(threading.get_ident(), _calls_here())
    return gc.collect(generation)


def _forget_older(thread: int, calls: int) -> None:
    """Drop the failures of calls that have ended; the one that is ending may have failed itself."""
    for failure in [failure for failure in _failures if failure.thread == thread]:
        if failure.calls < calls:
            _failures.remove(failure)


def _calls_here() -> int:
    from .native import native

    count: int = native().calls_here()[0]
    return count
