"""Which saved tensors are views of the same memory, which then travels once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from .._compat import torch_graphs

# View ops: function, arguments behind the tensor, keywords.
Steps = tuple[tuple[Any, tuple[Any, ...], dict[str, Any]], ...]


def viewed(node: fx.Node) -> tuple[fx.Node, Steps]:
    """The node that made a tensor's memory, and the views that lead from it to the tensor."""
    steps: list[Any] = []
    while node.op == "call_function" and torch_graphs.is_strided_view_op(node.target):
        if len(node.all_input_nodes) != 1:
            break
        steps.append((node.target, tuple(node.args[1:]), dict(node.kwargs)))
        (node,) = node.all_input_nodes
    return node, tuple(reversed(steps))


def shared_memory(
    saved: Sequence[fx.Node],
) -> tuple[tuple[fx.Node, ...], tuple[tuple[int, Steps], ...]]:
    """What to carry from the forward to the backward.

    Args:
        saved: Tensors that the backward reads, nodes of the forward graph.

    Returns:
        The tensors to carry, and for each of ``saved`` which of them it is found in, by what views.
    """
    views = [viewed(node) for node in saved]
    sizes: dict[fx.Node, int] = {}
    for node, (base, _) in zip(saved, views, strict=True):
        sizes[base] = sizes.get(base, 0) + _bytes(node)
    carried: dict[fx.Node, int] = {}
    places = []
    for node, (base, steps) in zip(saved, views, strict=True):
        # A part of something larger travels alone, unless the whole is saved in parts anyway.
        whole = _takes(steps) and _bytes(node) < sizes[base] >= _bytes(base) > 0
        source, way = (base, steps) if whole else (node, ())
        places.append((carried.setdefault(source, len(carried)), way))
    return tuple(carried), tuple(places)


def _takes(steps: Steps) -> bool:
    """Whether views can be taken again, also of a batch: torch.vmap hardly knows as_strided."""
    return all(function is not torch.ops.aten.as_strided.default for function, _, _ in steps)


def _bytes(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
