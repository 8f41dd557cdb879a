"""Where the backward finds saved tensors: in inputs, or in memory that travels once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import fx

from ...._compat import torch_graphs

# View ops: function, arguments behind the tensor, keywords.
Steps = tuple[tuple[Any, tuple[Any, ...], dict[str, Any]], ...]


@dataclass(frozen=True)
class Saved:
    """Where the backward graph finds one of its saved tensors.

    Attributes:
        source: ``input``: a view of input ``index``, taken again without a copy.
            ``residual``: a view of flat residual ``index``.
        index: Which one.
        steps: The view ops (function, further arguments, keywords) that lead to it.
    """

    source: Literal["input", "residual"]
    index: int
    steps: Steps = ()

    def view(self, base: torch.Tensor) -> torch.Tensor:
        """The saved tensor as a view of what it was a view of."""
        # Op by op, not by as_strided: that one is hardly known to torch.vmap.
        for function, arguments, keywords in self.steps:
            base = function(base, *arguments, **keywords)
        return base


def viewed(node: fx.Node) -> tuple[fx.Node, Steps]:
    """The node that made a tensor's memory, and the views that lead from it to the tensor."""
    steps: list[Any] = []
    while node.op == "call_function" and torch_graphs.is_strided_view_op(node.target):
        # An argument is a node as well, which would have to travel too.
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


def view_of_input(node: fx.Node, inputs: Mapping[str, int]) -> Saved | None:
    """How to take a saved tensor from an input again, if it is nothing but a view of one."""
    base, steps = viewed(node)
    if base.name not in inputs or node.meta["val"].dtype != base.meta["val"].dtype:
        return None
    return Saved("input", inputs[base.name], steps)
