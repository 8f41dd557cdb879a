"""From a captured graph to its operations as plain data; see `planner.aten_program`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from ..._compat.torch.capture.graphs import LIFTS
from ..._compat.torch.capture.user_lines import user_line
from ..._compat.torch.capture.value_sizes import condition_nodes, symbols_of
from ..._compat.torch.operators.writes_and_draws import draws_random_numbers
from ...errors import PlanningError
from ...planner.aten_program import (
    COMPARES_SIZES,
    READS_TENSOR,
    AtenProgram,
    DtypeName,
    Ref,
    ResultSig,
    Step,
)
from ..functions.graph_capture import NotCapturedError
from .counts import Counts
from .program import Program

# By their memory's layout, which XLA decides: they say what they do only of all of a row-major one.
_BY_MEMORY = frozenset(
    {"as_strided", "as_strided_copy", "as_strided_scatter", "_reshape_alias", "_reshape_alias_copy"}
)
# Where a result lies and how: XLA decides that.
_OF_MEMORY = frozenset({"device", "layout", "pin_memory", "memory_format", "non_blocking"})

_LIVE_DRAWS = "it draws from torch's generators: let a key say what it draws (`random: key`)"


def read_for_xla(program: Program, label: str) -> Read:
    """What JAX makes operations of, in place of calling torch.

    Raises:
        PlanningError: There can be no such program.
    """
    tried = f" ({'; '.join(program.no_graph)})" if program.no_graph else ""
    reason = f"no graph of it can be captured{tried}"
    if isinstance(program.core, fx.GraphModule):
        if program.gives_states or (program.seeds and not program.home.keyed):
            reason = _LIVE_DRAWS
        else:
            try:
                found = aten_program(program.core, of_derivative=program.home.order > 0)
                if program.seeds or not any(step.draws for step in found.program.steps):
                    keyed = replace(found.program, keyed=bool(program.seeds))
                    return replace(found, program=keyed)
                reason = _LIVE_DRAWS
            except NotCapturedError as error:
                reason = str(error)
    terms = program.home.terms
    where = f" [{terms.backend_at}]" if terms.backend_at else ""
    raise PlanningError(
        f"{label}: expected a function that JAX's operations can stand for, as `backend: xla` "
        f"says; {reason}. Say `eager` or `graph`.{where}"
    )


@dataclass(frozen=True, eq=False)
class Read:
    """A graph as plain data, and where that comes from.

    Attributes:
        program: The data.
        nodes: Of the graph, one for each step.
        arrays: For each array of the program, the node that makes it, and which of its results it
            is if it has several.
    """

    program: AtenProgram
    nodes: tuple[fx.Node, ...]
    arrays: tuple[tuple[fx.Node, int | None], ...]


def aten_program(graph: fx.GraphModule, *, of_derivative: bool = False) -> Read:
    """The operations of a graph that `graph_capture.capture` gives.

    What the graph holds is a constant where the function makes it of plain values
    (``torch.tensor([1.0])``). What was there before it was captured is read by a step.

    Args:
        graph: The graph.
        of_derivative: The function itself checks what it takes for granted of sizes.

    Raises:
        NotCapturedError: The graph holds what is no plain data.
    """
    return _Reader(graph, of_derivative).read()


class _Reader:
    def __init__(self, graph: fx.GraphModule, of_derivative: bool) -> None:
        self._graph = graph
        self._of_derivative = of_derivative
        # For each node, the numbers of its arrays.
        self._numbers: dict[fx.Node, tuple[Ref, ...]] = {}
        self._arrays: list[tuple[fx.Node, int | None]] = []
        self._counts = Counts()

    def read(self) -> Read:
        nodes = list(self._graph.graph.nodes)
        inputs = [node for node in nodes if node.op == "placeholder"]
        held = [node for node in nodes if node.op == "get_attr"]
        made = [node for node in held if self._is_constant(node)]
        for node in (*inputs, *made):
            self._number(node, None)
        steps, sources = [], []
        outputs: tuple[Ref, ...] = ()
        # Reads first and together, so that one call makes them all.
        for node in (*(node for node in held if node not in made), *nodes):
            if node.op == "output":
                outputs = tuple(self._value(one) for one in node.args[0])
                continue
            self._counts.note(node)
            known = node in self._numbers or self._counts.holds(node)
            step = None if known else self._step(node)
            if step is not None:
                made_before = [*self._counts.fresh, step]
                self._counts.fresh.clear()
                steps += made_before
                sources += [node] * len(made_before)
        for words, relation, left, right in self._counts.conditions(
            self._graph, of_derivative=self._of_derivative
        ):
            compared, check = condition_nodes(words)
            self._number(compared, None)
            (ref,) = self._numbers[compared]
            sig = ResultSig((), "bool")
            steps.append(Step(COMPARES_SIZES, (relation, left, right), (), (sig,), False))
            steps.append(Step(_name(check.target), (ref, check.args[1]), (), (), False))
            sources += [compared, check]
        program = AtenProgram(
            tuple(self._counts.sig(node.meta["val"]) for node in inputs),
            tuple(_constant(getattr(self._graph, str(node.target))) for node in made),
            tuple(steps),
            outputs,
            alike=self._alike(),
        )
        return Read(program, tuple(sources), tuple(self._arrays))

    def _alike(self) -> dict[int, int]:
        found = {}
        for node, refs in self._numbers.items():
            first = self._counts.alike(node)
            if first is not node and len(refs) == 1:
                found[refs[0].index] = self._numbers[first][0].index
        return found

    def _is_constant(self, node: fx.Node) -> bool:
        """Whether a tensor that the graph holds was made of plain values while it was captured."""
        tensor = getattr(self._graph, str(node.target))
        lifted = all(user.target in LIFTS for user in node.users)
        # Memory that is not torch's may change: that of a numpy array.
        return lifted and tensor.untyped_storage().resizable()

    def _number(self, node: fx.Node, count: int | None) -> None:
        first = len(self._arrays)
        places = [None] if count is None else list(range(count))
        self._arrays += [(node, place) for place in places]
        self._numbers[node] = tuple(Ref(first + number) for number in range(len(places)))

    def _step(self, node: fx.Node) -> Step | None:
        if node.op == "get_attr":
            sig = self._counts.sig(getattr(self._graph, str(node.target)))
            self._number(node, None)
            return Step(READS_TENSOR, (), (), (sig,), False)
        if getattr(node.target, "__name__", "") == "getitem":
            source, place = node.args
            assert isinstance(source, fx.Node)
            assert isinstance(place, int)
            self._numbers[node] = (self._numbers[source][place],)
            return None
        if isinstance(node.meta.get("val"), torch.SymInt):
            return None  # computed where it is used
        if not isinstance(node.target, torch._ops.OpOverload):
            raise NotCapturedError(f"the graph calls {node.target}, which is no operation of ATen")
        self._refuse_by_memory(node)
        # A check gives nothing.
        found = node.meta.get("val", ())
        found = () if found is None else found
        several = isinstance(found, (tuple, list))
        if several and any(isinstance(one, (tuple, list)) for one in found):
            raise NotCapturedError(
                f"{_name(node.target)} gives lists of tensors ({user_line(node)})"
            )
        results = tuple(map(self._counts.sig, found if several else (found,)))
        step = Step(
            _name(node.target),
            tuple(self._value(one) for one in node.args),
            tuple(
                (name, self._value(one))
                for name, one in node.kwargs.items()
                if name not in _OF_MEMORY
            ),
            results,
            several,
            user_line(node),
            draws_random_numbers(node.target, node.args, node.kwargs),
            torch.Tag.pointwise in node.target.tags,
        )
        self._number(node, len(results) if several else None)
        return step

    @staticmethod
    def _refuse_by_memory(node: fx.Node) -> None:
        target: Any = node.target
        if target._schema.is_mutable:
            raise NotCapturedError(f"{_name(target)} writes to its arguments ({user_line(node)})")
        if target._schema.name.removeprefix("aten::") not in _BY_MEMORY:
            return
        source: Any = node.args[0]
        value = source.meta["val"]
        if symbols_of(value) or symbols_of(node.meta["val"]):
            raise NotCapturedError(
                f"{_name(target)} of sizes that follow from values ({user_line(node)})"
            )
        size = value.untyped_storage().nbytes() // max(value.element_size(), 1)
        whole = value.is_contiguous() and value.storage_offset() == 0 and size == value.numel()
        if not whole:
            raise NotCapturedError(
                f"{_name(target)} reads the memory behind a view ({user_line(node)}), which "
                "XLA lays out in its own way"
            )

    def _value(self, value: Any) -> Any:
        if isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.SymInt):
            return self._counts.size(value.meta["val"])
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


def _name(target: Any) -> str:
    """As in the table: those of libraries with their names before them, ``torchvision::nms``."""
    if target.namespace == "aten":
        return str(target).removeprefix("aten.")
    return f"{target.namespace}::{str(target).partition('.')[2]}"


def _constant(tensor: torch.Tensor) -> Any:
    # A copy: numpy takes hold of memory that it sees, which then looks as if it was not torch's.
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().clone()
    if plain.dtype is torch.bfloat16:
        return "bfloat16", plain.view(torch.int16).numpy()
    return str(plain.dtype).removeprefix("torch."), plain.numpy()
