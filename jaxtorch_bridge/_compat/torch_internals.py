"""Torch internals. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

# What the native handler calls; see native_src/torch_api.h.
is_any_autocast_enabled: Callable[[], bool] = torch._C._is_any_autocast_enabled
# How many torch function modes the thread is in; ``torch.set_default_device`` is one.
function_modes: Callable[[], int] = torch._C._len_torch_function_stack
# What ``torch.no_grad`` and its kin call.
set_grad_enabled: Callable[..., Any] = torch._C._set_grad_enabled
storage_use_count: Callable[[int], int] = torch._C._storage_Use_Count


def dlpack_exchange_api() -> Any:
    """Torch's table of DLPack C functions, in a capsule (torch 2.11 and later)."""
    return torch.Tensor.__dlpack_c_exchange_api__


def fake_tensor_mode() -> Any:
    """A mode in which tensors have shapes, dtypes and strides but no memory.

    Real tensors that a function closes over (parameters, buffers) are taken as fakes too.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def without_constant(mode: Any, tensor: torch.Tensor) -> torch.Tensor:
    """The fake of a real tensor, always the same one.

    A fake mode that meets a small real tensor by itself keeps it as a constant and computes
    with it for real, so that an in-place op would change the caller's tensor.
    """
    fake: torch.Tensor = mode.from_tensor(tensor, static_shapes=True)
    return fake


# Ops that update running statistics in place, which their schemas do not say.
_UPDATES_STATISTICS = (
    "aten::native_batch_norm",
    "aten::cudnn_batch_norm",
    "aten::miopen_batch_norm",
    "aten::instance_norm",
)
_STATISTICS = ("running_mean", "running_var")


def is_fake(tensor: torch.Tensor) -> bool:
    """Whether a tensor belongs to a fake tensor mode."""
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


def evaluates_abstractly() -> bool:
    """Whether a mode watches or replaces ATen ops, so that values may not be looked at."""
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    return _get_current_dispatch_mode() is not None


def is_batched(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one element of a batch, inside ``torch.vmap``."""
    return bool(torch._C._functorch.is_batchedtensor(tensor))


def looks_at_values(error: BaseException) -> bool:
    """Whether a fake evaluation failed because the function asked for a value."""
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
    )
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    kinds = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)
    if isinstance(error, kinds):
        return True
    text = str(error)
    return "Cannot access data pointer" in text or ".item()" in text or "meta tensors" in text


def storage_key(tensor: torch.Tensor) -> int:
    """Equal for tensors that share memory, real or fake."""
    return int(tensor.untyped_storage()._cdata)


def give_own_memory(storage: torch.UntypedStorage) -> None:
    """Move a storage's content to memory of its own, under every tensor that shares it."""
    copy = storage.clone()
    storage._swap_data_ptr_(copy)  # type: ignore[attr-defined]
    # `copy` now frees the borrowed memory through its DLPack deleter.


def export_joint(function: Callable[..., Any], arguments: Sequence[torch.Tensor]) -> Any:
    """The graph that computes a function's outputs and its gradients (AOTAutograd).

    Args:
        function: Flat tensors to a tuple of tensors. Must not write to its arguments, and its
            outputs must not share memory with them.
        arguments: Fake tensors; those that require grad get a gradient.

    Returns:
        A graph module ``(primals, tangents) -> (*outputs, *gradients)`` with a tangent for
        every output that requires grad, and None for arguments that do not.
    """
    from torch._functorch.aot_autograd import aot_export_joint_simple

    return aot_export_joint_simple(function, tuple(arguments), trace_joint=True)


def partition_joint(
    joint: Any, arguments: Sequence[torch.Tensor], output_count: int
) -> tuple[Any, Any]:
    """Split a joint graph into a forward with saved tensors and a backward (min-cut)."""
    from torch._functorch import config
    from torch._functorch.partitioners import min_cut_rematerialization_partition

    joint = _without_tokens(joint, len(arguments))
    # Merging equal nodes would load half of Inductor, for two seconds, and finds next to nothing.
    with config.patch(cse=False):
        parts: tuple[Any, Any] = min_cut_rematerialization_partition(
            joint, arguments, num_fwd_outputs=output_count
        )
    _restore_checks(joint, parts)
    for part in parts:
        repair_graph(part, arguments[0].device.type)
    return parts


def trace_graph(
    function: Callable[..., Any], arguments: Sequence[torch.Tensor], device: str
) -> Any:
    """The graph of ATen ops that a function runs on fake arguments, below autograd.

    The graph holds closed-over real tensors themselves, so values changed in place are seen.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

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


@functools.cache
def load_forward_mode() -> None:
    """Load torch's forward-mode decompositions, as its first jvp would.

    Torch scripts them, and warns its user about that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module("torch._decomp.decompositions_for_jvp")


# Ops that only check, whose results nobody reads.
_CHECKS = (torch.ops.aten._linalg_check_errors.default,)


def remove_dead_code(graph: Any) -> None:
    """Drop what no result needs, but neither random ops nor checks."""
    graph.eliminate_dead_code(lambda node: node.is_impure() or node.target in _CHECKS)


def _without_tokens(joint: Any, input_count: int) -> Any:
    """The joint graph without the tokens by which AOTAutograd orders ops with effects.

    Raises:
        RuntimeError: An op has effects other than those of a check.
    """
    graph, wrapper = joint.graph, torch.ops.higher_order.with_effects
    primals = [n for n in graph.nodes if n.op == "placeholder" and n.name.startswith("primals")]
    tokens = primals[: len(primals) - input_count]
    if not tokens:
        return joint
    passed = set(tokens)
    for node in list(graph.nodes):
        if node.target is not wrapper:
            continue
        _, op, *arguments = node.args
        if op not in _CHECKS:
            raise RuntimeError(f"{op} has effects, which a graph cannot keep")
        with graph.inserting_before(node):
            graph.call_function(op, tuple(arguments), dict(node.kwargs))
        passed.add(node)
        passed.update(node.users)
    output = graph.output_node()
    results = [value for value in output.args[0] if value not in passed]
    output.args = (results,)
    for node in reversed(list(graph.nodes)):
        if node in passed:
            graph.erase_node(node)
    joint.recompile()
    return joint


def _restore_checks(joint: Any, parts: Sequence[Any]) -> None:
    """Put checks, whose results nobody reads, back where the partitioner left what they check."""
    checks = [node for node in joint.graph.nodes if node.target in _CHECKS]
    for check in checks:
        found = check.args[0]
        for part in parts:
            computed = {n.name: n for n in part.graph.nodes if n.op == "call_function"}
            parent = computed.get(found.args[0].name) if found.target is operator.getitem else None
            if parent is None:
                continue
            with part.graph.inserting_before(part.graph.output_node()):
                value = part.graph.call_function(operator.getitem, (parent, found.args[1]))
                part.graph.call_function(check.target, (value, *check.args[1:]), check.kwargs)
            part.recompile()
            break


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Run functions made by ``torch.compile`` as they were written.

    Dynamo can neither be traced through nor be differentiated by ``torch.func``.
    """
    import sys

    if "torch._dynamo" not in sys.modules:
        # Nothing can have been compiled yet.
        yield
        return
    from torch._dynamo import config

    with torch.compiler.set_stance("force_eager"), config.patch(error_on_nested_fx_trace=False):
        yield


def is_scripted(value: Any) -> bool:
    """Whether TorchScript runs a value: functorch's transforms are silently wrong on it.

    Its profiling executor specialises a graph after some runs, and then hides from nested
    transforms what it does.
    """
    if isinstance(value, torch.nn.Module):
        return any(isinstance(part, torch.jit.ScriptModule) for part in value.modules())
    return isinstance(value, (torch.jit.ScriptFunction, torch._C.ScriptMethod))


def hides_its_derivative(gradients: Sequence[torch.Tensor]) -> bool:
    """Whether a backward marked ``once_differentiable`` has a part in these gradients."""
    pending: list[Any] = [gradient.grad_fn for gradient in gradients]
    seen = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "Error" in node.name():
            return True
        pending += [following for following, _ in node.next_functions]
    return False


class OnDevice(TorchDispatchMode):
    """Has tensors made on ``device`` that torch's derivative formulas would make on meta.

    In C++, fakes say that they are on the meta device, and formulas make zeros like them.
    """

    def __init__(self, device: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = torch.device(device)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if _is_meta(kwargs.get("device")):
            kwargs["device"] = self._device
        return func(*args, **kwargs)


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


_ONCE_DIFFERENTIABLE = torch.autograd.function.once_differentiable(lambda ctx: None).__code__


def is_once_differentiable(outputs: Sequence[torch.Tensor]) -> bool:
    """Whether a custom function with a ``once_differentiable`` backward made any of these."""
    pending: list[Any] = [output.grad_fn for output in outputs]
    seen = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        backward = getattr(getattr(node, "_forward_cls", None), "backward", None)
        if getattr(backward, "__code__", None) is _ONCE_DIFFERENTIABLE:
            return True
        pending += [following for following, _ in node.next_functions]
    return False


def is_attention(function: Any) -> bool:
    """Whether an ATen op is one of the fused attention kernels, which have few derivatives."""
    name = str(function)
    return "attention" in name or "transformer" in name


def repair_graph(graph_module: Any, device: str) -> None:
    """Undo what tracing derivatives on fakes leaves in a graph.

    Raises:
        RuntimeError: The graph would fail when it runs.
    """
    graph, aten = graph_module.graph, torch.ops.aten
    for node in list(graph.nodes):
        if _is_meta(node.kwargs.get("device")):
            node.kwargs = {**node.kwargs, "device": torch.device(device)}
        if node.target is aten.linalg_lu_solve.default:
            _copy_factors(graph, node)
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


@contextlib.contextmanager
def unwarned_fallbacks() -> Iterator[None]:
    """Let ``torch.vmap`` go through a batch one by one, for ops that need it, without a word."""
    # Torch has no way to ask; on is the default.
    set_warnings = torch._C._functorch._set_vmap_fallback_warning_enabled  # type: ignore[attr-defined]
    set_warnings(False)
    try:
        yield
    finally:
        set_warnings(True)


def is_strided_view_op(target: Any) -> bool:
    """Whether an ATen op returns its first argument's memory under other sizes and strides.

    Views that also conjugate or negate are left out: sizes and strides do not tell of those.
    """
    schema = getattr(target, "_schema", None)
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


def written_arguments(
    function: Any, arguments: Sequence[Any], keywords: dict[str, Any]
) -> Iterator[torch.Tensor]:
    """The tensors that an ATen op writes to, by its schema."""
    schema = getattr(function, "_schema", None)
    if schema is None:
        return
    if schema.name in _UPDATES_STATISTICS:
        named = _named(schema, arguments, keywords)
        if named.get("training") or named.get("train"):
            yield from (named[name] for name in _STATISTICS if named.get(name) is not None)
    if not schema.is_mutable:
        return
    for position, declared in enumerate(schema.arguments):
        if declared.alias_info is None or not declared.alias_info.is_write:
            continue
        value = arguments[position] if position < len(arguments) else keywords.get(declared.name)
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, torch.Tensor))


def _named(schema: Any, arguments: Sequence[Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """An ATen op's arguments by name, defaults included."""
    names = [declared.name for declared in schema.arguments]
    defaults = {
        declared.name: declared.default_value
        for declared in schema.arguments
        if declared.has_default_value()
    }
    return {**defaults, **dict(zip(names, arguments, strict=False)), **keywords}


def draws_random_numbers(function: Any, arguments: Sequence[Any], keywords: dict[str, Any]) -> bool:
    """Whether an ATen op reads torch's random generator."""
    if torch.Tag.nondeterministic_seeded not in getattr(function, "tags", ()):
        return False
    named = _named(function._schema, arguments, keywords)
    # Fused attention and dropout carry the tag also where they drop nothing.
    return named.get("dropout_p", named.get("p", 1)) != 0 and named.get("train", True) is not False


@contextlib.contextmanager
def abstract_surroundings() -> Iterator[None]:
    """Let an abstract evaluation neither log nor leave fakes in autocast's cache of weights.

    What it fails at, the caller reports itself.
    """
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    logs, caches = logger.disabled, torch.is_autocast_cache_enabled()
    logger.disabled = True
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        logger.disabled = logs
        torch.set_autocast_cache_enabled(caches)
        torch.clear_autocast_cache()


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor's data pointer means anything: not so for fakes and their like."""
    own = type(tensor).__torch_dispatch__
    return own is torch.Tensor.__torch_dispatch__ or own is torch._C._disabled_torch_dispatch_impl


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Attention by plain matrix products, without the fused kernels.

    The fused CPU kernel's abstract rule gives other strides than the kernel itself (torch
    2.13), so that `torch.nn.TransformerEncoderLayer` runs but fails as a fake.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
