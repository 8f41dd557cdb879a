"""Parts of a graph that torch runs, in a program that is otherwise JAX operations."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from ...planner.array_signature import ArraySig
from .aten_steps import Read
from .make_op import op_of_program
from .program import Program
from .torch_op import Companion, LinearOp, TorchOp

# What a check gives.
CHECKED = ArraySig("checked", (), "bool", "bool")


def island(op: TorchOp, first: int, last: int) -> TorchOp:
    """The op that runs the steps from ``first`` until before ``last`` of ``op.aten``.

    From the arrays that they take to those that they give; see `AtenProgram.part`. A check, which
    stands alone, gives a boolean: that it has passed.
    """

    def build() -> Companion:
        graph = op.program.core
        assert isinstance(graph, fx.GraphModule)
        # The same reading that told the numbers.
        read = op.read
        assert read is not None
        part = read.program.part(first, last)
        steps = read.program.steps[first:last]
        names = "; ".join(dict.fromkeys(step.words for step in steps))
        check = not steps[0].results
        program = Program(
            _cut(graph, read, first, last, op.program.device if check else None),
            _sigs(read, part.takes, "array"),
            (CHECKED,) if check else _sigs(read, part.gives, "result"),
            op.home,
            op.program.context,
            guard=op.program.guard,
        )
        return Companion(
            op_of_program(
                program,
                f"{op.label} ({names})",
                f"{op.key}/island{first}:{last}",
                # Nobody derives from it: a derivative is a graph of its own.
                LinearOp(),
                op.family,
                op.steps,
                by_torch=True,
            )
        )

    found: Companion = op.derived.find(("island", first, last), build)
    return found.op


def _sigs(read: Read, numbers: tuple[int, ...], word: str) -> tuple[ArraySig, ...]:
    sigs = [read.program.sig_of(number) for number in numbers]
    return tuple(
        ArraySig(f"{word} {place}", sig.shape, sig.dtype, sig.dtype)
        for place, sig in enumerate(sigs)
    )


def _cut(
    graph: fx.GraphModule, read: Read, first: int, last: int, passed: str | None
) -> fx.GraphModule:
    """The steps as a graph of their own, which takes row-major arrays.

    With ``passed`` they are a check, which then gives a boolean on that device.
    """
    part = read.program.part(first, last)
    made = fx.Graph()
    arrays: dict[tuple[fx.Node, int | None], fx.Node] = {}
    for number in part.takes:
        arrays[read.arrays[number]] = made.placeholder(f"array_{number}")

    def found(node: fx.Node) -> fx.Node:
        if (node, None) in arrays:
            return arrays[node, None]
        source: Any
        place: Any
        source, place = node.args
        if (source, place) not in arrays:
            arrays[source, place] = made.call_function(
                operator.getitem, (arrays[source, None], place)
            )
        return arrays[source, place]

    for node in read.nodes[first:last]:
        arrays[node, None] = made.node_copy(node, found)
    results = []
    for number in part.gives:
        node, place = read.arrays[number]
        result = arrays[node, None]
        if place is not None:
            result = made.call_function(operator.getitem, (result, place))
        results.append(result)
    if passed is not None:
        results.append(
            made.call_function(torch.ones, ((),), {"dtype": torch.bool, "device": passed})
        )
    made.output(results)
    return fx.GraphModule(graph, made)
