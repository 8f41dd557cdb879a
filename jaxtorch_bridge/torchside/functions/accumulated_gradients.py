"""Gradients by ``torch.autograd.backward``, for code that runs under nothing else.

``torch.utils.checkpoint`` with ``use_reentrant=True`` calls ``backward`` itself, inside of its own
backward, and so adds to ``grad`` of all leaves that it comes to: those that are asked about, and
others that the function closes over, whose ``grad`` is the user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def accumulated_gradients(
    outputs: Sequence[Any],
    leaves: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
    *,
    keep: bool = False,
    others: Sequence[torch.Tensor] = (),
) -> list[torch.Tensor | None]:
    """As ``torch.autograd.grad(..., allow_unused=True)``.

    Args:
        outputs: Tensors, or edges that lead to them; see ``torch.autograd.graph.GradientEdge``.
        leaves: What to differentiate by: leaves, without a ``grad``.
        cotangents: One for each output.
        keep: What is recorded will be gone through again.
        others: Further leaves that may be come to.
    """
    before = [(tensor, tensor.grad) for tensor in others]
    for tensor, _ in before:
        # Or torch adds to it where it is.
        tensor.grad = None
    try:
        torch.autograd.backward(outputs, cotangents, retain_graph=keep)
        return [leaf.grad for leaf in leaves]
    finally:
        for leaf in leaves:
            leaf.grad = None
        for tensor, gradient in before:
            tensor.grad = gradient
