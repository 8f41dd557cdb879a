"""What is under way when Python ends: it is waited for, and nothing begins after it."""

from __future__ import annotations

import atexit
import time
from types import ModuleType

import jax

# The most that the end of a process is put off.
_SECONDS = 60.0
# Calls that come no sooner than this after one another are taken to have ended, where a compiled
# program is held by somebody and may be running or not.
_QUIET_SECONDS = 0.25
_STEP_SECONDS = 1e-3


def wait_at_the_end(native: ModuleType) -> None:
    """Register a wait for what JAX has dispatched and nobody has read, when Python ends.

    Python takes its lock away when it ends, and a thread of XLA's that asks for it then ends the
    process with an abort. JAX itself does not wait for such programs.
    """
    atexit.register(_end, native)


def _end(native: ModuleType) -> None:
    _, _, ops = native.under_way()
    if ops:
        # What runs is kept by XLA. What is left after this runs, or is held by the user.
        jax.clear_caches()
    end = time.monotonic() + _SECONDS
    _wait_for_programs(native, end)
    native.shut_out_xlas_threads()
    while native.under_way()[0] and time.monotonic() < end:
        time.sleep(_STEP_SECONDS)


def _wait_for_programs(native: ModuleType, end: float) -> None:
    seen, quiet_since = None, time.monotonic()
    while (now := time.monotonic()) < end:
        calls, begun, ops = native.under_way()
        if not calls and not ops:
            return
        if calls or begun != seen:
            seen, quiet_since = begun, now
        elif now - quiet_since > _QUIET_SECONDS:
            return
        time.sleep(_STEP_SECONDS)
