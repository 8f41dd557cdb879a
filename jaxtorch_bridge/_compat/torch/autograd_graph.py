"""What autograd has recorded behind tensors. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

# The wrapper's code is one for all functions that are marked.
_ONCE_DIFFERENTIABLE = torch.autograd.function.once_differentiable(lambda ctx: None).__code__


def is_once_differentiable(outputs: Sequence[torch.Tensor]) -> bool:
    """Whether a custom function with a ``once_differentiable`` backward made any of these."""

    def is_marked(node: Any) -> bool:
        backward = getattr(getattr(node, "_forward_cls", None), "backward", None)
        return getattr(backward, "__code__", None) is _ONCE_DIFFERENTIABLE

    return any(is_marked(node) for node in _recorded(outputs))


def hides_its_derivative(gradients: Sequence[torch.Tensor]) -> bool:
    """Whether a backward marked ``once_differentiable`` has a part in these gradients."""
    # The node that torch puts there in place of a derivative; it raises when it is reached.
    return any("Error" in node.name() for node in _recorded(gradients))


def lacks_derivative(outputs: Sequence[torch.Tensor]) -> bool:
    """Whether these come from an op without a derivative, at which torch would only warn."""
    # Torch's node for ops without a formula: it warns, and gives no gradient.
    return any("WarnNotImplemented" in node.name() for node in _recorded(outputs))


def checkpoints_reentrantly(outputs: Sequence[torch.Tensor | GradientEdge]) -> bool:
    """Whether ``torch.utils.checkpoint`` with ``use_reentrant=True`` has a part in these."""
    # Without the module no such node was made.
    checkpoint = sys.modules.get("torch.utils.checkpoint")
    if checkpoint is None:
        return False
    kind = checkpoint.CheckpointFunction._backward_cls
    return any(isinstance(node, kind) for node in _recorded(outputs))


def needs_backward(error: RuntimeError) -> bool:
    """Whether such a checkpoint has met ``torch.autograd.grad``."""
    return "use_reentrant=True" in str(error)


def leaves_behind(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that gradients of a tensor go back to."""
    return [node.variable for node in _recorded([tensor]) if hasattr(node, "variable")]


def _recorded(tensors: Sequence[torch.Tensor | GradientEdge]) -> Iterator[Any]:
    """The nodes that autograd recorded behind some tensors, or behind edges that lead to them."""
    pending: list[Any] = [
        tensor.grad_fn if isinstance(tensor, torch.Tensor) else tensor.node for tensor in tensors
    ]
    # Results that nothing was recorded for have no node.
    seen = {None}
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            yield node
            pending += [following for following, _ in node.next_functions]
