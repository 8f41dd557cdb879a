"""What torch records on this thread for a gradient of JAX's, and would lose if it left torch."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from ._compat.torch.autograd_graph import nodes_behind, variable_of


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
    if tensor.is_leaf:
        # Another one is a weight that the function closes over.
        return any(tensor is one for one in inputs)
    leaves = {id(one) for one in inputs if one.is_leaf}
    # Held: torch makes another object for a node once nobody has the last one.
    nodes = {one.grad_fn for one in inputs if not one.is_leaf}
    return any(
        node in nodes or id(variable_of(node)) in leaves for node in nodes_behind([tensor.grad_fn])
    )
