"""What torch records on this thread for a gradient of JAX's, and would lose if it left torch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any


class _OfThisThread(threading.local):
    # Of each run that is recorded, one inside of another.
    inputs: tuple[Any, ...] = ()


_THREAD = _OfThisThread()


@contextlib.contextmanager
def recorded_inputs(tensors: Sequence[Any]) -> Iterator[None]:
    """While a run is recorded that is differentiated by these tensors."""
    before = _THREAD.inputs
    _THREAD.inputs = (*before, *tensors)
    try:
        yield
    finally:
        _THREAD.inputs = before


def is_recorded(tensor: Any) -> bool:
    """Whether a gradient may go through a tensor: such an input, or what was computed of any."""
    inputs = _THREAD.inputs
    if not inputs or not tensor.requires_grad:
        return False
    # A leaf that is no input is a weight that the function closes over.
    return not tensor.is_leaf or any(tensor is one for one in inputs)
