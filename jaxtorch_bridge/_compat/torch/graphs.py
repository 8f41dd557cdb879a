"""Graphs of ATen ops: captured, split, repaired. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.torch_version import TorchVersion

from .attention import FUSED_ATTENTION, copy_columns
from .higher_order import OpMode
from .internals import drawn_shape, draws_random_numbers
from .pytrees import tree_flatten


def trace_graph(
    function: Callable[..., Any], arguments: Sequence[torch.Tensor], device: str
) -> Any:
    """The graph of ATen ops that a function runs on fake arguments, below autograd.

    The graph holds closed-over real tensors themselves, so values changed in place are seen.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    # "real": the arguments are fakes already.
    traced = make_fx(function, tracing_mode="real", _allow_non_fake_inputs=True)
    graph = traced(*arguments)
    repair_graph(graph, device)
    remove_dead_code(graph.graph)
    graph.recompile()
    return graph


def constants_of(graph: Any) -> list[torch.Tensor]:
    """The tensors that a graph holds."""
    names = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    found = [getattr(graph, name) for name in sorted(names)]
    return [value for value in found if isinstance(value, torch.Tensor)]


def drawn_shapes(graph: Any) -> tuple[tuple[int, ...], ...]:
    """Shapes of the random tensors that a graph draws, in order."""
    return tuple(
        drawn_shape(node.meta["val"])
        for node in graph.graph.nodes
        if node.op == "call_function" and draws_random_numbers(node.target, node.args, node.kwargs)
    )


# Ops that only check, whose results nobody reads.
_CHECKS = (
    torch.ops.aten._linalg_check_errors.default,
    torch.ops.aten._assert_async.default,
    torch.ops.aten._assert_async.msg,
)


# Those that Inductor leaves out of what it compiles.
_NOT_COMPILED = {torch.ops.aten._assert_async.default}
if TorchVersion(torch.__version__) < "2.13":
    _NOT_COMPILED.add(torch.ops.aten._linalg_check_errors.default)


def loses_checks(graph: Any) -> bool:
    """Whether a graph has checks that it would not make if it was compiled."""
    return any(node.target in _NOT_COMPILED for node in graph.graph.nodes)


def remove_dead_code(graph: Any) -> None:
    """Drop what no result needs, but neither random ops nor checks."""
    graph.eliminate_dead_code(lambda node: node.is_impure() or node.target in _CHECKS)


class OnDevice(OpMode):
    """Has tensors made on ``device`` that torch's derivative formulas would make on meta.

    In C++, fakes say that they are on the meta device, and formulas make zeros like them.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = torch.device(device)

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an ATen op, on the device."""
        kwargs = dict(kwargs)
        if _is_meta(kwargs.get("device")):
            kwargs["device"] = self._device
        return func(*args, **kwargs)

    def unseen(self, func: Any) -> None:
        """Let it pass: what is traced goes into the graph as it is."""


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


def repair_graph(graph_module: Any, device: str) -> None:
    """Undo what tracing derivatives on fakes leaves in a graph.

    Raises:
        RuntimeError: The graph would fail when it runs.
    """
    graph, aten = graph_module.graph, torch.ops.aten
    for node in list(graph.nodes):
        if _is_meta(node.kwargs.get("device")):
            # The graph would run on meta tensors, which have no values.
            node.kwargs = {**node.kwargs, "device": torch.device(device)}
        if node.target is aten.linalg_lu_solve.default:
            _copy_factors(graph, node)
        if node.target in FUSED_ATTENTION:
            copy_columns(graph, node)
        if node.target is not aten.copy_.default:
            continue
        target, source = node.args[:2]
        if target.target is aten._new_zeros_with_same_feature_meta.default:
            # It takes the strides of an expanded tensor, which cannot be written to.
            with graph.inserting_before(node):
                shape = list(node.meta["val"].shape)
                wide = graph.call_function(aten.expand.default, (source, shape))
                copy = graph.call_function(aten.clone.default, (wide,))
            copy.meta["val"] = node.meta["val"]
            node.replace_all_uses_with(copy)
            graph.erase_node(node)
            target.replace_all_uses_with(copy)
        elif _shares_elements(target.meta["val"]):
            # Torch refuses such a write when it runs, which is too late for another way.
            raise RuntimeError(f"{node} writes to a tensor whose elements share memory")
    graph_module.recompile()


def _copy_factors(graph: Any, node: Any) -> None:
    """Give ``lu_solve`` row-major factors: it is wrong on others with a batch axis of size 1."""
    factors = node.args[0]
    if factors.meta["val"].ndim > 2:
        with graph.inserting_before(node):
            copy = graph.call_function(
                torch.ops.aten.clone.default,
                (factors,),
                {"memory_format": torch.contiguous_format},
            )
        copy.meta["val"] = factors.meta["val"].contiguous()
        node.args = (copy, *node.args[1:])


def _shares_elements(tensor: torch.Tensor) -> bool:
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and step == 0 for size, step in pairs)


def is_strided_view_op(target: Any) -> bool:
    """Whether an ATen op returns its first argument's memory under other sizes and strides.

    Views that also conjugate or negate are left out: sizes and strides do not tell of those.
    """
    schema = getattr(target, "_schema", None)
    if target is torch.ops.aten._unsafe_view.default:
        return True  # nothing else has what it views, so that its schema need not say so
    if schema is None or not schema.arguments or len(schema.returns) != 1:
        return False
    if target in (torch.ops.aten._conj.default, torch.ops.aten._neg_view.default):
        return False
    source, result = schema.arguments[0].alias_info, schema.returns[0].alias_info
    return (
        source is not None
        and result is not None
        and not source.is_write
        and bool(source.before_set & result.before_set)
    )


@dataclass(frozen=True)
class OutForm:
    """The form of an ATen op that writes to tensors that it is given.

    Attributes:
        target: The overload to call.
        names: Its keyword for each result.
        copies: It is ``copy_``, which takes the target first.
        extra: Further positional arguments.
    """

    target: Any
    names: tuple[str, ...]
    copies: bool = False
    extra: tuple[Any, ...] = ()

    def call(self, graph: Any, op: Any, targets: Sequence[Any]) -> Any:
        """Add the call that does what the node ``op`` does."""
        if self.copies:
            return graph.call_function(self.target, (targets[0], op.args[0]))
        keywords = {**op.kwargs, **dict(zip(self.names, targets, strict=True))}
        return graph.call_function(self.target, (*op.args, *self.extra), keywords)


_COPIES = (torch.ops.aten.clone.default, torch.ops.aten._to_copy.default)


# Here too the forms of the ops themselves are generated ones; these take numbers as well.
_BY_NUMBERS = {
    torch.ops.aten.mul.Scalar: torch.ops.aten.mul.out,
    torch.ops.aten.div.Scalar: torch.ops.aten.div.out,
}


@functools.cache
def out_form(op: Any, device: str) -> OutForm | None:
    """How to have an ATen op write its results where it is told to; None if it cannot.

    Only kernels count that really write there: the many ``out=`` forms that torch generates
    compute a result of their own and copy it.

    Args:
        op: An overload that writes to nothing.
        device: ``cpu`` or ``cuda``.
    """
    if op in _COPIES:
        return OutForm(torch.ops.aten.copy_.default, ("self",), copies=True)
    if op is torch.ops.aten.relu.default:
        # Torch computes it so; the form of relu itself is a generated one.
        return OutForm(torch.ops.aten.clamp_min.out, ("out",), extra=(0,))
    if op in _BY_NUMBERS:
        return OutForm(_BY_NUMBERS[op], ("out",))
    schema = getattr(op, "_schema", None)
    if schema is None or schema.is_mutable:
        return None
    # Each buffer is for one tensor.
    if not all(str(result.type) == "Tensor" for result in schema.returns):
        return None
    wanted = _described(schema, written=False)
    packet = op.overloadpacket
    for name in packet.overloads():
        form = getattr(packet, name)
        names = tuple(name for name, _ in _described(form._schema, written=True))
        if len(names) != len(schema.returns) or _described(form._schema, written=False) != wanted:
            continue
        key = {"cpu": "CPU", "cuda": "CUDA"}[device]
        # Generated forms are made for all devices at once.
        if torch._C._dispatch_has_kernel_for_dispatch_key(form.name(), key):
            return OutForm(form, names)
    return None


def _described(schema: Any, *, written: bool) -> list[tuple[str, str]]:
    """(name, type) of the arguments that are written to, or of the others."""
    return [
        (argument.name, str(argument.type))
        for argument in schema.arguments
        if written == (argument.alias_info is not None and argument.alias_info.is_write)
    ]


class FirstOp(OpMode):
    """Stops at the first ATen op that a function comes down to, and notes its arguments."""

    class _Found(Exception):
        pass

    def __init__(self) -> None:
        super().__init__()
        self.found: tuple[Any, Any, Any] | None = None

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Note an ATen op, and stop."""
        self.found = func, args, kwargs
        raise self._Found

    @classmethod
    def of(
        cls, function: Callable[..., Any], args: Sequence[Any], kwargs: Any
    ) -> tuple[Any, Any, Any] | None:
        """(op, arguments, keywords), without running it; None if the function takes no such."""
        mode = cls()
        try:
            with mode, torch.no_grad():
                function(*args, **kwargs)
        except cls._Found:
            return mode.found
        except Exception:
            # Whatever it says to arguments that are not its own.
            return None
        return None


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "neg": operator.neg,
}


def same_calls(one: tuple[Any, Any, Any] | None, other: tuple[Any, Any, Any] | None) -> bool:
    """Whether two calls are of one op, with the same arguments."""
    if one is None or other is None or one[0] is not other[0]:
        return False
    ours, our_form = tree_flatten(one[1:])
    theirs, their_form = tree_flatten(other[1:])
    return our_form == their_form and all(map(_same_argument, ours, theirs))


def _same_argument(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    # 1, 1.0 and True are equal, and tell torch different things.
    return type(one) is type(other) and bool(one == other)


def functions_named(op: Any) -> list[Callable[..., Any]]:
    """C functions of torch that may do what an ATen overload does, by its name."""
    if op.namespace != "aten":
        return []
    name = op.overloadpacket.__name__
    places = (torch._C._VariableFunctions, torch._C._nn, torch._C.TensorBase)
    named = [getattr(place, name) for place in places if hasattr(place, name)]
    found = [function for function in named if _is_what_graphs_write(function)]
    # Python's operators take the shortest way of all.
    return [_OPERATORS[name], *found] if name in _OPERATORS else found


def _is_what_graphs_write(function: Any) -> bool:
    """Whether the text of a graph comes to this function.

    The text has names. ``torch.block_diag`` is written for the C function too, but is one of
    Python's, which takes other arguments.
    """
    from torch.fx.node import _get_qualified_name

    try:
        path = _get_qualified_name(function).split(".")
        meant = functools.reduce(getattr, path[1:], torch)
    except (AttributeError, RuntimeError):
        return False
    return path[0] == "torch" and meant is function
