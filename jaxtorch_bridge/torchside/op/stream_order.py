"""Whether a call on a GPU has to be ordered with what is queued on torch's own stream."""

from __future__ import annotations

from torch import fx

from ..._compat.torch.capture.graphs import constants_of
from .program import Program

ORDERED = "ordered with torch's own stream, on which what it refers to may be in use"
ALONE = "not ordered with torch's own stream: it touches nothing but its arguments and results"


def order_words(program: Program) -> str:
    """The same for `explain`."""
    return ORDERED if is_ordered(program) else ALONE


def is_ordered(program: Program) -> bool:
    """Whether a run may touch memory of a GPU that others than XLA write to or read.

    A graph says all that it touches. Of a function's own code only what refers to nothing but torch
    is known: a helper may keep tensors anywhere. A record that waits for a backward counts as kept.
    """
    if isinstance(program.core, fx.GraphModule):
        return any(constant.is_cuda for constant in constants_of(program.core))
    keeps = bool(program.also_gives) or program.batched_core is not None
    return keeps or not program.home.closure.refers_to_torch_alone
