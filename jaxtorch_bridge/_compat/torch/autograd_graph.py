"""What autograd has recorded behind tensors. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

# What hooks are put on, as function modes see it: a tensor, or the nodes behind it.
LEADS_TO_HOOKS = (torch.Tensor.register_hook, vars(torch._C.TensorBase)["grad_fn"].__get__)

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
    return any("Error" in name_of(node) for node in _recorded(gradients))


def lacks_derivative(outputs: Sequence[torch.Tensor]) -> bool:
    """Whether these come from an op without a derivative, at which torch would only warn."""
    # Torch's node for ops without a formula: it warns, and gives no gradient.
    return any("WarnNotImplemented" in name_of(node) for node in _recorded(outputs))


def leaves_behind(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that gradients of a tensor go back to."""
    found = map(variable_of, _recorded([tensor]))
    return [variable for variable in found if variable is not None]


def leads_back_to(tensor: torch.Tensor, inputs: Sequence[torch.Tensor]) -> bool:
    """Whether a gradient of a tensor goes back to any of these, one of which it may be itself."""
    with _unseen():
        if not tensor.requires_grad:
            return False
        if tensor.is_leaf:
            return any(tensor is one for one in inputs)
        leaves = {id(one) for one in inputs if one.is_leaf}
        # Held: torch makes another object for a node once nobody has the last one.
        nodes = {one.grad_fn for one in inputs if not one.is_leaf}
        return any(node in nodes or id(variable_of(node)) in leaves for node in _recorded([tensor]))


# Asked of a node's class: the node of a custom function is its `ctx`, to which users give
# attributes of any name.
def name_of(node: Any) -> str:
    """What torch calls a node."""
    return str(type(node).name(node))


def variable_of(node: Any) -> torch.Tensor | None:
    """The leaf whose gradient comes out of a node; None for all others."""
    found = getattr(type(node), "variable", None)
    return None if found is None else found.__get__(node)


def gradients_taken(node: Any) -> list[tuple[tuple[int, ...], torch.dtype, torch.device]]:
    """Shape, dtype and device of each gradient that comes in at a node."""
    return [(tuple(one.shape), one.dtype, one.device) for one in node._input_metadata]


def run_node(node: Any, gradients: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    """The gradients that come out of a node, without the hooks on it; it can run again."""
    found = node(*gradients)
    return found if isinstance(found, tuple) else (found,)


def following(node: Any) -> tuple[tuple[Any, int], ...]:
    """Where the gradients go that come out of a node: nodes (or None), and the places there."""
    return tuple(type(node).next_functions.__get__(node))


def has_own_backwards(nodes: Sequence[Any]) -> bool:
    """Whether some nodes, or those behind them, run a backward that is Python's."""
    own = torch.autograd.function.BackwardCFunction
    return any(issubclass(type(node), own) for node in nodes_behind(nodes))


def _recorded(tensors: Sequence[torch.Tensor]) -> Iterator[Any]:
    """The nodes that autograd recorded behind some tensors."""
    with _unseen():
        nodes = [tensor.grad_fn for tensor in tensors]
    return nodes_behind(nodes)


# Function modes look for code of users' that asks tensors such things.
_unseen = torch._C.DisableTorchFunction


def nodes_behind(nodes: Sequence[Any]) -> Iterator[Any]:
    """Some nodes (or None, where nothing was recorded), and all that gradients go on to."""
    pending: list[Any] = [*nodes]
    # Results that nothing was recorded for have no node.
    seen = {None}
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            yield node
            pending += [after for after, _ in following(node)]
