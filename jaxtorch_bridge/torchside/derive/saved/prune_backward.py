"""Cut a captured backward graph to the gradients and the cotangents that are asked for."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import fx

from ...._compat.torch_graphs import remove_dead_code

aten = torch.ops.aten

# Zero if their first argument is.
_LINEAR = {
    getattr(aten, name)
    for name in [
        "view",
        "reshape",
        "_unsafe_view",
        "_reshape_alias",
        "expand",
        "t",
        "transpose",
        "permute",
        "squeeze",
        "unsqueeze",
        "sum",
        "neg",
        "clone",
        "detach",
        "alias",
        "slice",
        "select",
        "_to_copy",
        "mean",
        "conj",
        "_conj",
        "_neg_view",
        "index_select",
        "gather",
        "flip",
        "cumsum",
        "tril",
        "triu",
        "roll",
        "repeat",
        "div",
        "real",
        "imag",
        "view_as_real",
        "view_as_complex",
        "diagonal",
        "unfold",
        "to",
        "resolve_conj",
        "split",
        "unbind",
    ]
    # Not every version of torch has each of them.
    if hasattr(aten, name)
}
# Zero if either of their first two arguments is.
_BILINEAR = {aten.mul, aten.mm, aten.bmm, aten.matmul, aten.dot, aten.mv}


def prune(backward: Any, results: Collection[int], cotangents: Sequence[bool]) -> Any:
    """A copy of the graph that computes only some results from only some cotangents.

    Args:
        backward: Graph of (saved tensors, cotangents) to gradients, linear in the cotangents.
        results: Positions of the results that are wanted; the others become None.
        cotangents: For each cotangent, whether there is one; the others are zero.

    Returns:
        A graph module with the same placeholders, of which some may have no user.
    """
    graph = fx.Graph()
    names: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(backward.graph, names)
    kept = [value if i in results else None for i, value in enumerate(output)]  # type: ignore[arg-type]
    # Outputs that were placeholders or None come through as they are.
    graph.output(tuple(kept))
    for old, new in names.items():
        new.meta = dict(old.meta)
    _spread_zeros(graph, cotangents)
    remove_dead_code(graph)
    return fx.GraphModule(backward, graph)


def without_detach(graph_module: Any) -> Any:
    """A copy of a graph in which nothing is cut off from differentiation."""
    graph = fx.Graph()
    names: dict[fx.Node, fx.Node] = {}
    output = graph.graph_copy(graph_module.graph, names)
    graph.output(output)
    for node in graph.nodes:
        if node.target is aten.detach.default:
            # The same view, which autograd follows.
            node.target = aten.alias.default
    return fx.GraphModule(graph_module, graph)


def unused_placeholders(graph: Any) -> list[bool]:
    """For each placeholder of a graph module, whether nothing reads it."""
    return [not node.users for node in graph.graph.nodes if node.op == "placeholder"]


def _spread_zeros(graph: fx.Graph, cotangents: Sequence[bool]) -> None:
    """Follow absent cotangents: what is zero is left out, or made where it is needed."""
    tangents = [
        node
        for node in graph.nodes
        if node.op == "placeholder" and node.name.startswith("tangents")
    ]
    zero = {node for node, there in zip(tangents, cotangents, strict=True) if not there}
    if not zero:
        return
    for node in list(graph.nodes):
        if node.op == "call_function":
            _visit(graph, node, zero)
        elif node.op == "output":
            for argument in [value for value in node.all_input_nodes if value in zero]:
                _replace_use(graph, node, argument)


def _visit(graph: fx.Graph, node: fx.Node, zero: set[fx.Node]) -> None:
    inputs = [argument for argument in node.all_input_nodes if argument in zero]
    if not inputs:
        return
    if _is_zero(node, zero):
        zero.add(node)
        return
    # The summand itself in place of a sum with zeros.
    other = _other_summand(node, zero)
    if other is not None:
        node.replace_all_uses_with(other)
        return
    for argument in inputs:
        _replace_use(graph, node, argument)


def _is_zero(node: fx.Node, zero: set[fx.Node]) -> bool:
    if node.target is operator.getitem:
        return node.args[0] in zero
    target: Any = node.target
    packet = getattr(target, "overloadpacket", None)
    schema = getattr(target, "_schema", None)
    if packet is None or schema is None or not node.args:
        return False
    if packet in _LINEAR:
        return node.args[0] in zero
    if packet in _BILINEAR:
        return node.args[0] in zero or node.args[1] in zero
    if packet in (aten.add, aten.sub):
        return all(argument in zero for argument in node.args[:2])
    # Linear in the gradient that comes first, as every such op of torch is.
    named = schema.name.endswith("_backward") and schema.arguments[0].name.startswith("grad")
    return named and node.args[0] in zero


def _other_summand(node: fx.Node, zero: set[fx.Node]) -> fx.Node | None:
    """What is left of a sum with a zero in it, if it is the sum in shape and dtype too."""
    if node.target is not aten.add.Tensor or node.kwargs:
        return None
    first, second = node.args[:2]
    other: Any = second if first in zero else first
    if not isinstance(other, fx.Node) or "val" not in other.meta or "val" not in node.meta:
        return None
    mine, its = node.meta["val"], other.meta["val"]
    same = mine.shape == its.shape and mine.dtype == its.dtype and mine.stride() == its.stride()
    return other if same else None


def _replace_use(graph: fx.Graph, user: fx.Node, zero: fx.Node) -> None:
    """Give an op that needs a tensor one of zeros."""
    value = zero.meta["val"]
    # With the strides that the user was traced with.
    make: Callable[..., Any] = torch.empty_strided
    with graph.inserting_before(user):
        made = graph.call_function(
            make,
            (tuple(value.shape), tuple(value.stride())),
            {"dtype": value.dtype, "device": value.device},
        )
        filled = graph.call_function(aten.zero.default, (made,))
    filled.meta["val"] = value
    user.replace_input_with(zero, filled)
