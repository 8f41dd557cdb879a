"""Whether two traces of a function did the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..._compat.torch import autograd_graph


def same_graphs(one: Any, other: Any) -> bool:
    """Whether two graphs of ATen ops do the same on the same tensors, op by op."""
    ours, theirs = _described(one), _described(other)
    return ours[0] == theirs[0] and all(map(_same_constants, ours[1], theirs[1]))


def _described(graph: Any) -> tuple[list[str], list[Any]]:
    """A line for each node, and what the graph holds, in the order in which it is read."""
    numbers: dict[Any, str] = {}
    lines, held = [], []

    def named(node: Any) -> Any:
        return _Named(numbers[node])

    for node in graph.graph.nodes:
        numbers[node] = f"%{len(numbers)}"
        given = torch.fx.node.map_arg((node.args, node.kwargs), named)
        target = str(node.target) if node.op == "call_function" else node.op
        lines.append(f"{target} {given!r}")
        if node.op == "get_attr":
            held.append(getattr(graph, node.target))
    return lines, held


class _Named:
    """Stands for a node in the text of arguments."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


def _same_constants(one: Any, other: Any) -> bool:
    """Whether it is the same tensor, or a constant that code makes anew each time."""
    if one is other:
        return True
    if not (type(one) is torch.Tensor and type(other) is torch.Tensor):
        return False
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(_bytes(one), _bytes(other))


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    # NaN is equal to itself here.
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def recorded_graph(outputs: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> list[Any]:
    """What autograd recorded from inputs to outputs, in a form that can be compared.

    Graphs of ATen ops do not show where a gradient is cut (``torch.no_grad``), nor which function
    of their own differentiates some of them.
    """
    positions = {id(tensor): index for index, tensor in enumerate(inputs)}
    numbers: dict[Any, int] = {}
    lines: list[Any] = []
    pending: list[Any] = [output.grad_fn for output in outputs]
    lines.append(
        [
            (output.requires_grad, output.output_nr, _node(numbers, output.grad_fn))
            for output in outputs
        ]
    )
    # Results that nothing was recorded for have no node.
    seen = {None}
    while pending:
        node = pending.pop(0)
        if node in seen:
            continue
        seen.add(node)
        variable = autograd_graph.variable_of(node)
        # Closed-over tensors that require grad are real ones, and live as long as the function.
        leaf = None if variable is None else positions.get(id(variable), f"tensor {id(variable)}")
        following = autograd_graph.following(node)
        places = [(_node(numbers, after), place) for after, place in following]
        lines.append((_node(numbers, node), autograd_graph.name_of(node), leaf, places))
        pending += [after for after, _ in following]
    return lines


def _node(numbers: dict[Any, int], node: Any) -> int | None:
    """A node's number, which is by the order in which nodes are first met."""
    return None if node is None else numbers.setdefault(node, len(numbers))
