"""What is under way when Python ends: it is waited for, and nothing begins after it.

Python takes its lock away when it ends, and a thread of XLA's that asks for it then ends the
process with an abort. JAX does not wait for programs whose results nobody reads.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from types import ModuleType

import jax

from .._compat import jax_internals as compat

_logger = logging.getLogger(__name__)

# The most that the end of a process is put off, for programs that run.
_SECONDS = 60.0
# The most since the last call for programs that somebody holds, whatever the process computes: it
# may be something else, as OpenMP's threads do under OMP_WAIT_POLICY=ACTIVE.
_HELD_SECONDS = 5.0
# The most for them in all where other threads of Python may call them for ever.
_BESIDE_THREADS_SECONDS = 2.0
# The most for calls that have begun before no more are let in.
_SHUT_OUT_SECONDS = 5.0

# A process that neither calls torch nor computes for so long is taken to have done all it was told:
# where programs may only be held; where one must run, if nothing was miscounted; and where that one
# may wait for another process, if that has not died.
_QUIET_SECONDS = 0.25
_QUIET_RUNNING_SECONDS = 2.0
_QUIET_PROCESSES_SECONDS = 15.0
# The part of a processor that counts as computing, and the time over which it is looked at.
_COMPUTING = 0.2
_LOOK_SECONDS = 0.05

_STEP_SECONDS = 2e-3


def wait_at_the_end(native: ModuleType, target: str) -> None:
    """Have Python wait for the programs that call torch when it ends, and let no call in later.

    Args:
        native: The compiled module.
        target: What the names of its FFI targets begin with.
    """
    # Nothing else refers to the object, so that it ends with the list of exit functions: after the
    # last of them has run, and before Python takes its lock away.
    atexit.register(_Ending(native, target).wait)


class _Ending:
    """Waits as an exit function, and once more after all of them, for what those have begun."""

    def __init__(self, native: ModuleType, target: str) -> None:
        self._native = native
        self._target = target
        alone = jax.process_count() == 1
        self._quiet_running = _QUIET_RUNNING_SECONDS if alone else _QUIET_PROCESSES_SECONDS
        self._process = os.getpid()
        self._begun = False
        # How much had been asked for, and how many ops there were, when the wait ended.
        self._waited_for: tuple[int, int] | None = None

    def wait(self) -> None:
        if os.getpid() != self._process:  # a fork, where XLA's threads do not exist
            return
        self._begun = True
        self._wait_for_programs()
        _, asked, ops = self._native.under_way()
        self._waited_for = asked, ops

    def __del__(self) -> None:
        if not self._begun or os.getpid() != self._process or not _python_ends():
            return
        try:
            if self._waited_for is not None:  # else it was interrupted: somebody is in a hurry
                asked, ops = self._waited_for
                calls_now, asked_now, ops_now = self._native.under_way()
                if calls_now or asked_now != asked or ops_now > ops:
                    self._wait_for_programs()
        finally:
            self._native.shut_out_xlas_threads()
            end = time.monotonic() + _SHUT_OUT_SECONDS
            while self._native.under_way()[0] and time.monotonic() < end:
                time.sleep(_STEP_SECONDS)

    def _wait_for_programs(self) -> None:
        if self._native.under_way()[2]:
            _drop_caches()
        start = time.monotonic()
        activity = _Activity(start)
        held = _HeldOps(self._target)
        while True:
            calls, asked, ops = self._native.under_way()
            if not calls and not ops:
                return
            now = time.monotonic()
            activity.look(now, calls, asked)
            runs = ops > held.count(ops)
            if runs:
                done = now - activity.last > self._quiet_running
            else:
                done = not calls and (
                    now - activity.last > _QUIET_SECONDS
                    or now - activity.last_call > _HELD_SECONDS
                    or (_other_threads() and now - start > _BESIDE_THREADS_SECONDS)
                )
            if done:
                return
            if now - start > _SECONDS:
                _logger.warning(
                    "Python ends while programs that call torch still run: calls under way: %d, "
                    "ops that may be called again, and will fail: %d. To have Python wait longer, "
                    "read their results, or call jax.block_until_ready on them.",
                    calls,
                    ops,
                )
                return
            time.sleep(_STEP_SECONDS)


def _python_ends() -> bool:
    """Whether exit functions run for that, and not because somebody has called them."""
    return not threading.main_thread().is_alive()


def _drop_caches() -> None:
    """Have only those executables left that run, which XLA keeps, or that somebody holds."""
    try:
        jax.clear_caches()
    except Exception:
        _logger.exception("JAX's caches could not be cleared when Python ended")


def _other_threads() -> bool:
    """Whether Python code of the user's runs in another thread, which is a daemon by now."""
    # Threads of XLA's that have run Python code are there as dummies.
    dummy = threading._DummyThread
    return sum(not isinstance(thread, dummy) for thread in threading.enumerate()) > 1


class _Activity:
    """When the process last called torch, and when it last did that or computed."""

    def __init__(self, now: float) -> None:
        self.last_call = self.last = now
        self._asked = -1
        self._looked, self._spent = now, time.process_time()

    def look(self, now: float, calls: int, asked: int) -> None:
        if calls or asked != self._asked:
            self._asked = asked
            self.last_call = self.last = now
        if now - self._looked > _LOOK_SECONDS:
            spent = time.process_time()
            if spent - self._spent > _COMPUTING * (now - self._looked):
                self.last = now
            self._looked, self._spent = now, spent


class _HeldOps:
    """How many ops there are in executables that Python objects hold, which may run or not."""

    def __init__(self, target: str) -> None:
        self._mark = f'custom_call_target="{target}'
        self._ops = -1
        self._count = 0

    def count(self, ops: int) -> int:
        if ops > self._ops:  # at first, and where another thread makes more of them
            try:
                texts = compat.held_executables()
                self._count = sum(text.count(self._mark) for text in texts)
            except Exception:  # some that were loaded from elsewhere do not tell what they are
                self._count = ops
        self._ops = ops
        return self._count
