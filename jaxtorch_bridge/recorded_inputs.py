"""What torch records on this thread for a gradient of JAX's, and would lose if it left torch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ._compat.torch.autograd_graph import leads_back_to


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
    # Of other leaves, weights that the function closes over, JAX takes no gradient.
    return bool(_THREAD.inputs) and leads_back_to(tensor, _THREAD.inputs)
