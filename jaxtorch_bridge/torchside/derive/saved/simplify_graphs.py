"""Take work out of a captured forward and backward that changes no result.

Torch runs less than its graphs say: dropout that drops nothing is a copy in a graph and nothing in
torch, and a packed projection's gradient is added up from tensors that are zero for the most part.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from ...._compat import torch_graphs
from ...._compat.torch_attention import unread_seeds

aten = torch.ops.aten


def simplify(joint: Any) -> None:
    """Rewrite a joint graph in place, before it is split."""
    graph: fx.Graph = joint.graph
    for node in list(graph.nodes):
        seeds, device = unread_seeds(node)
        for seed in seeds:
            _forget(graph, node, seed, device)
    if not _writes_nothing(graph):
        return
    for node in list(graph.nodes):
        if node.target is aten.clone.default:
            _drop_copy(graph, node)
    # From the last sum on: the top of a tree of sums comes before its branches.
    for node in reversed(list(graph.nodes)):
        if node.target is aten.add.Tensor and node.users:
            _stack_parts(graph, node)
    torch_graphs.remove_dead_code(graph)
    joint.recompile()


def _writes_nothing(graph: fx.Graph) -> bool:
    """Whether all ops are torch's own and none writes: a copy and its source then stay equal."""
    for node in graph.nodes:
        if node.op in ("placeholder", "output", "get_attr") or node.target is operator.getitem:
            continue
        if node.op != "call_function" or torch_graphs.may_write(node.target):
            return False
    return True


def _forget(graph: fx.Graph, node: fx.Node, unread: fx.Node, device: str) -> None:
    """Give a node anything in place of what it does not read, so that this need not travel.

    From the forward to the backward; on the CPU it would have the GPU waited for.
    """
    value = unread.meta["val"]
    with graph.inserting_before(node):
        anything = graph.call_function(
            aten.empty.memory_format,
            (list(value.shape),),
            {"dtype": value.dtype, "device": torch.device(device)},
        )
    anything.meta["val"] = value
    node.replace_input_with(unread, anything)


def _drop_copy(graph: fx.Graph, node: fx.Node) -> None:
    """Use what is copied instead, if it has the same layout and is no result."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    before, after = source.meta["val"], node.meta["val"]
    # Such a copy may be what carries out a pending conjugation or negation.
    if after.is_complex() or before.is_neg():
        return
    # Where a tensor begins in its memory counts for as_strided and for views of other dtypes.
    if before.stride() != after.stride() or before.storage_offset() != after.storage_offset():
        return
    # A result has memory of its own, so that it may be written to.
    if any(user.op == "output" for user in node.users):
        return
    node.replace_all_uses_with(source)
    graph.erase_node(node)


def _stack_parts(graph: fx.Graph, total: fx.Node) -> None:
    """Make a sum of slices, each in a tensor of zeros, into one tensor of all the slices.

    It is the gradient of a tensor that is taken apart along an axis: queries, keys and values.
    """
    parts = _addends(total)
    first = parts[0]
    if len(parts) < 2 or any(part.target is not aten.select_backward.default for part in parts):
        return
    shape: Any = first.args[1]
    axis: Any = first.args[2]
    if any(part.kwargs or list(part.args[1:3]) != [shape, axis] for part in parts):
        return
    size: int = shape[axis]
    # Two gradients of one slice meet in one place; the count below tells.
    slices = {_slice_index(part) % size: part.all_input_nodes[0] for part in parts}
    dtypes = {value.meta["val"].dtype for value in slices.values()}
    if len(slices) != len(parts) or len(slices) != size:
        return
    if dtypes != {total.meta["val"].dtype} or not total.meta["val"].is_contiguous():
        return
    with graph.inserting_before(total):
        stacked = graph.call_function(
            aten.stack.default, ([slices[index] for index in range(size)], axis)
        )
    stacked.meta = dict(total.meta)
    total.replace_all_uses_with(stacked)
    graph.erase_node(total)


def _slice_index(part: fx.Node) -> int:
    index = part.args[3]
    assert isinstance(index, int)
    return index


def _addends(node: fx.Node) -> list[fx.Node]:
    """What a tree of plain sums, of which nothing else reads a part, adds up."""
    found: list[fx.Node] = []
    pending = [node]
    while pending:
        one = pending.pop()
        plain = one.target is aten.add.Tensor and not one.kwargs
        if plain and (one is node or len(one.users) == 1):
            operands = [operand for operand in one.args if isinstance(operand, fx.Node)]
            if len(operands) == 2:
                pending += operands
                continue
        found.append(one)
    return found
