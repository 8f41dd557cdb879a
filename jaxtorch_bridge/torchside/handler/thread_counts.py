"""How many threads torch uses in each thread that XLA calls it on.

Torch's OpenMP pool belongs to the calling thread. XLA has a thread for each device, so their
numbers multiply: 8 devices with 8 threads each would be 64 on 8 cores. The cores are shared out.
"""

from __future__ import annotations

import os
import threading
import warnings

from ..._compat.torch.openmp import OpenMP, openmp
from ...config import settings
from ...errors import BridgeWarning
from .native_module import native

# The setting and the number of devices that threads were last shared out for.
_applied: tuple[int | None, int] | None = None
_lock = threading.Lock()


class _Here(threading.local):
    """How many threads torch would use in this thread by itself, if it is one of XLA's."""

    own: int | None = None


_here = _Here()


def share_threads(devices: int) -> None:
    """Share the thread budget out among the CPU devices; each of XLA's threads takes its share.

    The caller's own threads keep what ``torch.set_num_threads`` gave them.

    Args:
        devices: How many CPU devices this process has.
    """
    global _applied
    wanted = settings.torch_threads, devices
    # In every plan, so without the lock: who comes late does the same again.
    if _applied == wanted:
        return
    with _lock:
        library = openmp()
        if library is None:
            if settings.torch_threads is not None:
                warnings.warn(
                    "settings.torch_threads has no effect: this build of torch uses no OpenMP.",
                    BridgeWarning,
                    stacklevel=2,
                )
        else:
            # Threads that have entered before enter again, with the new numbers.
            native().set_thread_entry(lambda: _enter(library, *wanted))
        _applied = wanted


def runs_beside_others() -> bool:
    """Whether this is one of XLA's threads in a process of several CPU devices."""
    return _applied is not None and _applied[1] > 1 and _here.own is not None


def _enter(library: OpenMP, budget: int | None, devices: int) -> None:
    """Called by the handler, once in each of XLA's threads."""
    if _here.own is None:
        _here.own = library.limit()
    library.limit(threads_each(budget, devices, _here.own))


def threads_each(budget: int | None, devices: int, own: int) -> int:
    """Torch's threads in one of XLA's threads.

    Args:
        budget: For all of them together; None: the cores that this process may run on.
        devices: How many there are.
        own: What torch would take by itself (``OMP_NUM_THREADS``, ``torch.set_num_threads``);
            never exceeded but by a budget that somebody asked for.
    """
    share = max(1, (budget if budget is not None else cores()) // max(1, devices))
    # More threads than torch would take by itself only where somebody asked for a number.
    return share if budget is not None else min(own, share)


def cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
