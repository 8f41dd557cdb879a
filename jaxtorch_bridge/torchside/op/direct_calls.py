"""Graphs that call torch's own functions: what an ATen overload costs more than those is Python.

An overload is found by its name and takes any arguments; ``torch.mul`` is a C function that parses
its own. Each call is tried on tensors without memory first: it must come down to the same overload,
with the same arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ..._compat.torch.operators.named_functions import FirstOp, functions_named, same_calls


def with_direct_calls(module: fx.GraphModule) -> fx.GraphModule:
    """The same graph with public functions in place of overloads, where they do the same."""
    graph = fx.Graph()
    names: dict[fx.Node, fx.Node] = {}
    output: Any = graph.graph_copy(module.graph, names)
    graph.output(output)
    for old, new in names.items():
        if new.op == "call_function" and isinstance(new.target, torch._ops.OpOverload):
            direct = _direct(old)
            if direct is not None:
                new.target = direct
    graph.lint()
    return fx.GraphModule(module, graph)


def _direct(node: fx.Node) -> Callable[..., Any] | None:
    """The function to call, or None."""
    operands = [*node.all_input_nodes]
    if any("val" not in operand.meta for operand in operands):
        return None
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda operand: operand.meta["val"])
    overload: Any = node.target
    wanted = FirstOp.of(overload, args, kwargs)
    for function in functions_named(node.target):
        if same_calls(FirstOp.of(function, args, kwargs), wanted):
            return function
    return None
