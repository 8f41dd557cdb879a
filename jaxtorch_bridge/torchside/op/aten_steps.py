"""From a captured graph to its operations as plain data; see `planner.aten_program`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ..._compat.torch.graphs import LIFTS, constants_of
from ...errors import PlanningError
from ...planner.aten_program import AtenProgram, DtypeName, Ref, ResultSig, Step
from ..functions.graph_capture import NotCapturedError
from .program import Program

# Where a result lies and how: XLA decides that.
_OF_MEMORY = frozenset({"device", "layout", "pin_memory", "memory_format", "non_blocking"})


def lowered_program(program: Program, label: str) -> AtenProgram:
    """What JAX makes operations of, in place of calling torch.

    Raises:
        PlanningError: There can be no such program.
    """
    source = program.home
    reason = "no graph of it can be captured"
    if isinstance(program.core, fx.GraphModule):
        if program.seeds or program.gives_states:
            reason = "it draws random numbers"
        elif _holds_others(program.core):
            reason = (
                "it closes over tensors, and JAX's program would keep their values: pass them as "
                "arguments, or take the module by from_module"
            )
        elif any(not one.untyped_storage().resizable() for one in constants_of(program.core)):
            reason = (
                "it holds memory that is not torch's (a numpy array), and JAX's program would keep "
                "its values: pass it as an argument"
            )
        else:
            try:
                return aten_program(program.core)
            except NotCapturedError as error:
                reason = str(error)
    where = f" [{source.terms.backend_at}]" if source.terms.backend_at else ""
    raise PlanningError(
        f"{label}: expected a function that JAX's operations can stand for, as `backend: xla` "
        f"says; {reason}. Say `eager` or `graph`.{where}"
    )


def _holds_others(graph: fx.GraphModule) -> bool:
    """Whether a graph holds tensors that were there before it was captured.

    Those that the function makes of plain values (``torch.tensor([1.0])``) are lifted into it.
    """
    held = [node for node in graph.graph.nodes if node.op == "get_attr"]
    return any(user.target not in LIFTS for node in held for user in node.users)


def aten_program(graph: fx.GraphModule) -> AtenProgram:
    """The operations of a graph that `graph_capture.capture` gives.

    Raises:
        NotCapturedError: The graph holds what is no plain data.
    """
    return _Reader(graph).read()


class _Reader:
    def __init__(self, graph: fx.GraphModule) -> None:
        self._graph = graph
        # For each node, the numbers of its arrays.
        self._numbers: dict[fx.Node, tuple[Ref, ...]] = {}
        self._count = 0

    def read(self) -> AtenProgram:
        nodes = list(self._graph.graph.nodes)
        inputs = [node for node in nodes if node.op == "placeholder"]
        held = [node for node in nodes if node.op == "get_attr"]
        for node in (*inputs, *held):
            self._number(node, 1)
        steps = []
        outputs: tuple[Ref, ...] = ()
        for node in nodes:
            if node.op == "call_function":
                step = self._step(node)
                if step is not None:
                    steps.append(step)
            elif node.op == "output":
                outputs = tuple(self._value(one) for one in node.args[0])
        return AtenProgram(
            tuple(_sig(node.meta["val"]) for node in inputs),
            tuple(_constant(getattr(self._graph, str(node.target))) for node in held),
            tuple(steps),
            outputs,
        )

    def _number(self, node: fx.Node, count: int) -> None:
        self._numbers[node] = tuple(Ref(self._count + place) for place in range(count))
        self._count += count

    def _step(self, node: fx.Node) -> Step | None:
        if getattr(node.target, "__name__", "") == "getitem":
            source, place = node.args
            assert isinstance(source, fx.Node)
            assert isinstance(place, int)
            self._numbers[node] = (self._numbers[source][place],)
            return None
        if not isinstance(node.target, torch._ops.OpOverload):
            raise NotCapturedError(f"the graph calls {node.target}, which is no operation of ATen")
        if "val" not in node.meta:
            raise NotCapturedError(f"it makes a check ({node.target}), and XLA makes none")
        found = node.meta["val"]
        several = isinstance(found, (tuple, list))
        results = tuple(_sig(one) for one in (found if several else (found,)))
        step = Step(
            str(node.target).removeprefix("aten."),
            tuple(self._value(one) for one in node.args),
            tuple(
                (name, self._value(one))
                for name, one in node.kwargs.items()
                if name not in _OF_MEMORY
            ),
            results,
            several,
            _place(node),
        )
        self._number(node, len(results))
        return step

    def _value(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            refs = self._numbers[value]
            return refs[0] if len(refs) == 1 else refs
        if isinstance(value, (list, tuple)):
            return tuple(self._value(one) for one in value)
        if isinstance(value, torch.dtype):
            return DtypeName(str(value).removeprefix("torch."))
        if isinstance(value, (torch.device, torch.layout, torch.memory_format)):
            return None
        if value is None or isinstance(value, (bool, int, float, complex, str)):
            return value
        raise NotCapturedError(f"the graph has an argument of the class {type(value).__name__}")


def _sig(value: Any) -> ResultSig:
    if value is None:
        return ResultSig((), "none")
    return ResultSig(tuple(value.shape), str(value.dtype).removeprefix("torch."))


def _constant(tensor: torch.Tensor) -> Any:
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    if plain.dtype is torch.bfloat16:
        return "bfloat16", plain.view(torch.int16).numpy().copy()
    return str(plain.dtype).removeprefix("torch."), plain.numpy().copy()


def _place(node: fx.Node) -> str:
    trace = node.meta.get("stack_trace") or ""
    lines: Sequence[str] = [line.strip() for line in trace.splitlines() if "File " in line]
    return lines[-1] if lines else ""
