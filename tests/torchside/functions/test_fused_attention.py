"""What is special about fused attention for GPUs in graphs, as far as the CPU can tell."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx

from jaxtorch_bridge._compat.torch_attention import is_on_host, unread_seeds
from jaxtorch_bridge.torchside.derive.saved.simplify_graphs import simplify

aten = torch.ops.aten
EFFICIENT = aten._scaled_dot_product_efficient_attention
FLASH = aten._scaled_dot_product_flash_attention_backward
BACKWARD = {
    "efficient": (aten._scaled_dot_product_efficient_attention_backward, "cpu"),
    "flash": (FLASH, "cuda"),
    "cudnn": (aten._scaled_dot_product_cudnn_attention_backward, "cuda"),
}
SCALARS = {"max_q": 4, "max_k": 4, "is_causal": False, "grad_input_mask": [True] * 3 + [False]}


def backward_graph(op, dropout):
    graph = fx.Graph()
    arguments = []
    for argument in op.default._schema.arguments:
        if argument.kwarg_only:
            continue
        if argument.name == "dropout_p":
            arguments.append(dropout)
        elif argument.name in SCALARS:
            arguments.append(SCALARS[argument.name])
        else:
            node = graph.placeholder(argument.name)
            node.meta["val"] = torch.empty((), dtype=torch.int64, device="meta")
            arguments.append(node)
    graph.output(graph.call_function(op.default, tuple(arguments)))
    return fx.GraphModule({}, graph)


def call_in(module):
    (node,) = (n for n in module.graph.nodes if n.op == "call_function" and "attention" in n.name)
    return node


@pytest.mark.parametrize("name", BACKWARD)
def test_seeds_travel_only_where_something_is_dropped(name):
    op, device = BACKWARD[name]
    module = backward_graph(op, dropout=0.0)
    seeds, found = unread_seeds(call_in(module))
    assert [seed.name for seed in seeds] == ["philox_seed", "philox_offset"]
    assert found == device
    simplify(module)
    for seed in seeds:
        assert not seed.users
    made = [node for node in module.graph.nodes if node.target is aten.empty.memory_format]
    assert [node.kwargs["device"].type for node in made] == [device] * 2
    # All others stay where they were.
    names = [argument.name for argument in op.default._schema.arguments]
    for argument, value in zip(names, call_in(module).args, strict=False):
        if isinstance(value, fx.Node) and "philox" not in argument:
            assert value.name == argument
    module = backward_graph(op, dropout=0.5)
    simplify(module)
    assert not any(node.target is aten.empty.memory_format for node in module.graph.nodes)


def test_what_lies_on_the_host():
    graph = fx.Graph()
    q = graph.placeholder("q")
    call = graph.call_function(EFFICIENT.default, (q, q, q, None, True))
    results = [graph.call_function(operator.getitem, (call, index)) for index in range(4)]
    pair = graph.call_function(aten.sort.default, (q,))
    indices = graph.call_function(operator.getitem, (pair, 1))
    for node in (*results, q):
        node.meta["val"] = torch.empty((), device="meta")
    indices.meta["val"] = torch.zeros(())
    assert [is_on_host(node, "cuda") for node in (*results, q, indices)] == [
        False, False, True, True, False, True
    ]  # fmt: skip
    assert not any(is_on_host(node, "cpu") for node in (*results, q, indices))
