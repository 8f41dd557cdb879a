"""Eager calls end when torch has run, with torch's own failure, wherever JAX runs them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import jax

from .ops import WatchLike

Results = TypeVar("Results")


@functools.cache
def runs_at_once() -> bool:
    """Whether a program, called on arrays that have been computed, has run when the call returns.

    So it is on the CPU. On a GPU JAX hands out results that may still fail: only their use would
    say so, and nothing would if they are not used.
    """
    return jax.default_backend() == "cpu"


def finished(call: Callable[[], Results], watch: Callable[[], WatchLike]) -> Results:
    """The results of an eager call, once torch's function has returned.

    What it has queued on a GPU may still be running: that is waited for only where nothing else
    tells how the call ended, as when JAX ran it on another thread.

    Raises:
        BaseException: What torch raised in this thread, as an eager call does.
        jax.errors.JaxRuntimeError: With its text, if it was in another.
    """
    if runs_at_once():
        return call()
    seen = watch()
    results = call()
    failure = seen.failure
    if failure is not None:
        raise failure from failure.__cause__
    if not seen.succeeded:
        jax.block_until_ready(results)
    return results
