"""Eager calls end when torch has run, with torch's own failure, wherever JAX runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .op_protocol import WatchLike


def finished(
    call: Callable[..., Any], arrays: Sequence[Any], watch: Callable[[], WatchLike]
) -> Any:
    """The results of an eager call, once torch's function has returned.

    On a GPU, and where it runs in other threads (as for arrays over several devices), JAX hands out
    results that may still fail: only their use would say so, and nothing if they are not used. What
    torch has queued on a GPU may still be running: that is waited for only where nothing else tells
    how the call ended.

    Raises:
        BaseException: What torch raised in this thread, as an eager call does.
        jax.errors.JaxRuntimeError: With its text, if it was in another.
    """
    # Before the call: what failed in this thread earlier is not this call's.
    seen = watch()
    results = call(*arrays)
    if not seen.succeeded:
        failure = seen.failure
        if failure is not None:
            # From its own cause: JAX's error about the same call is not shown beside it.
            raise failure from failure.__cause__
        # It ran in another thread, or its words are gone: only JAX can tell how it ended.
        jax.block_until_ready(results)
    return results
