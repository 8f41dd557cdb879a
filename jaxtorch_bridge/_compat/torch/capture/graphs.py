"""Graphs of ATen ops: captured and repaired. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.torch_version import TorchVersion

from ..operators import linear_solves
from ..operators.attention import FUSED_ATTENTION, copy_columns
from ..operators.higher_order import OpMode
from ..operators.writes_and_draws import drawn_shape, draws_random_numbers
from .user_lines import replayed, with_user_lines
from .value_sizes import asserts_in, count_asserts, keep_asserts


def trace_graph(
    function: Callable[..., Any],
    arguments: Sequence[torch.Tensor],
    device: str,
    *,
    decomposed: bool = False,
) -> Any:
    """The graph of ATen ops that a function runs on fake arguments, below autograd.

    The graph holds closed-over real tensors themselves, so values changed in place are seen.

    Args:
        function: What to trace.
        arguments: Fakes.
        device: ``cpu`` or ``cuda``.
        decomposed: Into few operations, none of which writes to anything; see
            ``torch._decomp.core_aten_decompositions``.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    table = decompositions() if decomposed else None
    # "real": the arguments are fakes already.
    if decomposed:
        # What has no counterpart in JAX is named with its line.
        function = with_user_lines(function)
    before = count_asserts()
    traced = make_fx(function, table, tracing_mode="real", _allow_non_fake_inputs=True)
    graph = traced(*arguments)
    _remove_profiling(graph.graph)
    keep_asserts(graph, before)
    if decomposed and any(_writes(node) for node in graph.graph.nodes):
        # Writes of the function's own, and of decompositions.
        pure = torch.func.functionalize(replayed(graph), remove="mutations")
        known, before = asserts_in(graph), count_asserts()
        graph = make_fx(pure, tracing_mode="real", _allow_non_fake_inputs=True)(*arguments)
        keep_asserts(graph, before)
        if asserts_in(graph) != known:
            # Those that Python code makes, which the graph does not have.
            raise RuntimeError("it checks sizes that follow from values, and writes to tensors")
    repair_graph(graph, device)
    remove_dead_code(graph.graph)
    graph.recompile()
    # Hooks that a program puts on all modules are not for this one, which is nobody's: each of
    # these has a class of its own.
    kind: Any = type(graph)
    kind.__call__ = _by_its_code
    return graph


def _by_its_code(graph: Any, *tensors: torch.Tensor) -> Any:
    return graph.forward(*tensors)


# Beyond torch's core: operations that are left there, and that JAX has no counterpart of.
_ALSO_DECOMPOSED = (
    "_batch_norm_with_update_functional",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "dist",
    "linalg_vector_norm",
    "narrow_copy",
    "native_dropout",
    "permute_copy",
    "unbind_copy.int",
    "unfold",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "upsample_trilinear3d",
    "view_copy",
)


# Those that say more as a whole: where sizes follow from values, their parts cannot be computed.
_WHOLE = (torch.ops.aten.stack.default, torch.ops.aten.logsumexp.default)


@functools.cache
def decompositions() -> dict[Any, Any]:
    """What operations are taken apart into, where XLA is to run them."""
    from torch._decomp import core_aten_decompositions, decomposition_table

    found = dict(core_aten_decompositions())
    for whole in _WHOLE:
        found.pop(whole, None)
    for name in _ALSO_DECOMPOSED:
        packet, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
        if op in decomposition_table:
            found[op] = decomposition_table[op]
    found[torch.ops.aten.native_batch_norm.default] = _batch_norm
    found.update(linear_solves.decompositions())
    return found


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *rest: Any
) -> Any:
    """By the operations whose schemas say what they write to."""
    aten = torch.ops.aten
    if not training:
        return aten._native_batch_norm_legit_no_training(x, weight, bias, mean, variance, *rest)
    if mean is None:
        return aten._native_batch_norm_legit.no_stats(x, weight, bias, True, *rest)
    return aten._native_batch_norm_legit(x, weight, bias, mean, variance, True, *rest)


def _writes(node: Any) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


# What a graph does with tensors that were made while it was captured.
LIFTS = (torch.ops.aten.lift_fresh_copy.default, torch.ops.aten.lift_fresh.default)


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


def _remove_profiling(graph: Any) -> None:
    """Drop what optimizers, and ``torch.profiler.record_function``, say to a profiler.

    It takes and gives an object of C++, and is of no use in a graph, which has its own times.
    """
    for node in reversed(graph.nodes):
        if getattr(node.target, "namespace", "") == "profiler":
            graph.erase_node(node)


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
