"""Calls of modules that are recorded for a gradient: they are cleaned up when that is taken.

``torch.utils.checkpoint`` runs layers again then, and so may custom functions and hooks. They are
to find the parameters, buffers and attributes of their own call, and what they change themselves is
put back like all else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

import torch

from ..._compat.torch.autograd import keeping_records
from ..._compat.torch.operators.checkpoints import without_reentrancy
from ...recorded_inputs import recorded_inputs
from ..handler.native_module import native


class RecordedCalls:
    """Those whose clean-up waits."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], bool]] = []

    def wait(self, finish: Callable[[], bool]) -> None:
        """Have a call cleaned up later; what does it tells whether others refer to its layers."""
        self._waiting.append(finish)

    def take_over(self, others: RecordedCalls) -> None:
        """Clean up theirs, and they none."""
        self._waiting += others._waiting
        others._waiting = []

    def finish(self) -> bool:
        """No gradient is taken any more: clean up, the latest call first.

        Returns:
            Whether somebody refers to layers, as code does that a backward would run.
        """
        waiting, self._waiting = self._waiting, []
        found = [finish() for finish in reversed(waiting)]
        return any(found)


class _OfThisThread(threading.local):
    latest: RecordedCalls | None = None
    # In how many calls for XLA it was begun.
    depth: int = 0


_THREAD = _OfThisThread()


def recorder() -> RecordedCalls | None:
    """Who cleans up after what this thread runs; None where nothing is recorded."""
    latest = _THREAD.latest
    # What is recorded may call JAX, which may call torch: those calls are no part of it.
    return None if latest is None or native().depth_here() != _THREAD.depth else latest


def _is_recorded() -> bool:
    return torch.is_grad_enabled() and recorder() is not None


def going_back() -> contextlib.AbstractContextManager[None]:
    """Around the last backward of a recorded run: what it has gone through is freed."""
    return keeping_records(False)


@contextlib.contextmanager
def unrecorded() -> Iterator[None]:
    """While something is planned, which what is recorded may ask for by a call of JAX."""
    before, _THREAD.latest = _THREAD.latest, None
    try:
        yield
    finally:
        _THREAD.latest = before


@contextlib.contextmanager
def recording(inputs: Sequence[torch.Tensor] = ()) -> Iterator[RecordedCalls]:
    """Around a run that is recorded, and around its backward.

    What is recorded inside of another recorded run is a part of that, and waits for it. Gradients
    that the function takes itself free nothing, as its own is yet to be taken: energy and forces
    come from one record.

    Args:
        inputs: What the run is differentiated by, where that can be told from other tensors.
    """
    without_reentrancy(_is_recorded)
    outer, own = recorder(), RecordedCalls()
    before = _THREAD.latest, _THREAD.depth
    _THREAD.latest, _THREAD.depth = own, native().depth_here()
    try:
        with recorded_inputs(inputs), keeping_records(True):
            yield own
    finally:
        _THREAD.latest, _THREAD.depth = before
        if outer is None:
            own.finish()
        else:
            outer.take_over(own)
