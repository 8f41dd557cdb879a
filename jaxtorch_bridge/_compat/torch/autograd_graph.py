"""What autograd has recorded behind tensors. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

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


def leaves_behind(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that gradients of a tensor go back to."""
    return [node.variable for node in _recorded([tensor]) if hasattr(node, "variable")]


def _recorded(tensors: Sequence[torch.Tensor]) -> Iterator[Any]:
    """The nodes that autograd recorded behind some tensors."""
    pending: list[Any] = [tensor.grad_fn for tensor in tensors]
    # Results that nothing was recorded for have no node.
    seen = {None}
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            yield node
            pending += [following for following, _ in node.next_functions]
