"""Torch internals of the native handler, tracing, schemas of ops, generators and OpenMP.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch.autograd.graph import GradientEdge

from .attention import PlainAttention as PlainAttention
from .dynamo import load_deprecated
from .dynamo import uncompiled as uncompiled
from .export_flags import Asked as Asked
from .export_flags import raised_by_torch as raised_by_torch
from .export_flags import tracing_flags as tracing_flags
from .fake_tensors import ValuesReadError as ValuesReadError
from .fake_tensors import cannot_be_fake as cannot_be_fake
from .fake_tensors import fake_tensor_mode as fake_tensor_mode
from .fake_tensors import is_fake as is_fake
from .fake_tensors import lifts_constants as lifts_constants
from .fake_tensors import looks_at_values as looks_at_values
from .fake_tensors import reads_values as reads_values
from .fake_tensors import without_constant as without_constant
from .recurrent_layers import PlainRnns as PlainRnns
from .storage_keys import reserve_storage_key as reserve_storage_key
from .storages import give_own_memory as give_own_memory

# What the native handler calls; see native_src/torch_api.h.
is_any_autocast_enabled: Callable[[], bool] = torch._C._is_any_autocast_enabled
# How many torch function modes the thread is in; ``torch.set_default_device`` is one.
function_modes: Callable[[], int] = torch._C._len_torch_function_stack
# What ``torch.no_grad`` and its kin call.
set_grad_enabled: Callable[..., Any] = torch._C._set_grad_enabled
# To be held by whoever traces or evaluates with fakes. Torch sets flags and patches of the whole
# process meanwhile (fx's, dynamo's, those of attention): two threads at once can leave them on for
# ever, or take each other's off.
tracing = threading.RLock()
storage_use_count: Callable[[int], int] = torch._C._storage_Use_Count
# A getter of CPython's, which the handler calls without looking it up.
version_getter: Any = torch.Tensor._version


def dlpack_exchange_api() -> Any:
    """Torch's table of DLPack C functions, in a capsule (torch 2.11 and later)."""
    return torch.Tensor.__dlpack_c_exchange_api__


# Ops that update running statistics in place, which their schemas do not say.
UPDATES_STATISTICS = (
    "aten::native_batch_norm",
    "aten::cudnn_batch_norm",
    "aten::miopen_batch_norm",
    "aten::instance_norm",
)
_STATISTICS = ("running_mean", "running_var")


def evaluates_abstractly() -> bool:
    """Whether a mode watches or replaces ATen ops, so that values may not be looked at."""
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    return _get_current_dispatch_mode() is not None


def is_transformed(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for another one, inside of ``torch.func``'s transforms."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def storage_key(tensor: torch.Tensor) -> int:
    """Equal for tensors that share memory, real or fake."""
    return int(tensor.untyped_storage()._cdata)


def memory_key(tensor: torch.Tensor) -> int:
    """The same; 0 for layouts that have no memory of their own (sparse ones)."""
    try:
        return storage_key(tensor)
    except (RuntimeError, NotImplementedError):
        return 0


def negative_view(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory with a negation pending."""
    return torch._neg_view(tensor)


def use_count(tensor: torch.Tensor) -> int:
    """How many hold a tensor, of Python or not; its views and what autograd saved included."""
    return int(tensor._use_count())  # type: ignore[attr-defined]


def load_forward_mode() -> None:
    """Load torch's forward-mode decompositions, as its first jvp would."""
    load_deprecated("torch._decomp.decompositions_for_jvp")


def is_scripted(value: Any) -> bool:
    """Whether TorchScript runs a value: functorch's transforms are silently wrong on it.

    Its profiling executor specialises a graph after some runs, and then hides from nested
    transforms what it does.
    """
    # By the type: what an object says that it is may be code of its own.
    if issubclass(type(value), torch.nn.Module):
        return any(isinstance(part, torch.jit.ScriptModule) for part in value.modules())
    return issubclass(type(value), (torch.jit.ScriptFunction, torch._C.ScriptMethod))


# The wrapper's code is one for all functions that are marked.
_ONCE_DIFFERENTIABLE = torch.autograd.function.once_differentiable(lambda ctx: None).__code__


def is_once_differentiable(outputs: Sequence[torch.Tensor]) -> bool:
    """Whether a custom function with a ``once_differentiable`` backward made any of these."""

    def is_marked(node: Any) -> bool:
        backward = getattr(getattr(node, "_forward_cls", None), "backward", None)
        return getattr(backward, "__code__", None) is _ONCE_DIFFERENTIABLE

    return any(is_marked(node) for node in _recorded(outputs))


def hides_its_derivative(gradients: Sequence[torch.Tensor]) -> bool:
    """Whether a backward marked ``once_differentiable`` has a part in these gradients."""
    # The node that torch puts there in place of a derivative; it raises when it is reached.
    return any("Error" in node.name() for node in _recorded(gradients))


def lacks_derivative(outputs: Sequence[torch.Tensor]) -> bool:
    """Whether these come from an op without a derivative, at which torch would only warn."""
    # Torch's node for ops without a formula: it warns, and gives no gradient.
    return any("WarnNotImplemented" in node.name() for node in _recorded(outputs))


def checkpoints_reentrantly(outputs: Sequence[torch.Tensor | GradientEdge]) -> bool:
    """Whether ``torch.utils.checkpoint`` with ``use_reentrant=True`` has a part in these."""
    # Without the module no such node was made.
    checkpoint = sys.modules.get("torch.utils.checkpoint")
    if checkpoint is None:
        return False
    kind = checkpoint.CheckpointFunction._backward_cls
    return any(isinstance(node, kind) for node in _recorded(outputs))


def needs_backward(error: RuntimeError) -> bool:
    """Whether such a checkpoint has met ``torch.autograd.grad``."""
    return "use_reentrant=True" in str(error)


def leaves_behind(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors that gradients of a tensor go back to."""
    return [node.variable for node in _recorded([tensor]) if hasattr(node, "variable")]


def _recorded(tensors: Sequence[torch.Tensor | GradientEdge]) -> Iterator[Any]:
    """The nodes that autograd recorded behind some tensors, or behind edges that lead to them."""
    pending: list[Any] = [
        tensor.grad_fn if isinstance(tensor, torch.Tensor) else tensor.node for tensor in tensors
    ]
    # Results that nothing was recorded for have no node.
    seen = {None}
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            yield node
            pending += [following for following, _ in node.next_functions]


def is_attention(function: Any) -> bool:
    """Whether an ATen op is one of the fused attention kernels, which have few derivatives."""
    name = str(function)
    return "attention" in name or "transformer" in name


@contextlib.contextmanager
def unwarned_fallbacks() -> Iterator[None]:
    """Let ``torch.vmap`` go through a batch one by one, for ops that need it, without a word.

    Torch has one switch for the process, and asks no filter of Python's everywhere: meanwhile
    other threads are not warned either.
    """
    set_warnings = torch._C._functorch._set_vmap_fallback_warning_enabled  # type: ignore[attr-defined]
    before = warns_of_fallbacks()
    set_warnings(False)
    try:
        yield
    finally:
        set_warnings(before)


def warns_of_fallbacks() -> bool:
    """Whether ``torch.vmap`` warns of ops that it does one by one; Python cannot ask torch."""
    try:
        ask = ctypes.CDLL(torch._C.__file__)["_ZN2at9functorch28isVmapFallbackWarningEnabledEv"]
    except AttributeError:
        return True  # as torch begins
    ask.restype = ctypes.c_bool
    return bool(ask())


def written_arguments(
    function: Any, arguments: Sequence[Any], keywords: dict[str, Any]
) -> Iterator[torch.Tensor]:
    """The tensors that an ATen op writes to, by its schema."""
    schema = getattr(function, "_schema", None)
    if schema is None:
        return
    if schema.name in UPDATES_STATISTICS:
        named = _named(schema, arguments, keywords)
        # In evaluation they are only read.
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


def updates_statistics(function: Any) -> bool:
    """Whether an ATen op updates running statistics, which autograd never records."""
    schema = getattr(function, "_schema", None)
    return schema is not None and schema.name in UPDATES_STATISTICS


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


def generator_key(generator: torch.Generator) -> int:
    """Equal for one generator, of which torch makes a new object each time it hands it out."""
    return int(generator._cdata)  # type: ignore[attr-defined]


def global_generator_state() -> bytes:
    """The state of torch's CPU generator, also where operations are watched or faked."""
    from torch.utils._python_dispatch import _disable_current_modes

    # A fake mode would make a fake of it, which has no bytes.
    with _disable_current_modes():
        return torch.get_rng_state().numpy().tobytes()


def own_generator(arguments: Sequence[Any], keywords: dict[str, Any]) -> torch.Generator | None:
    """The generator that an ATen op is given, if any."""
    found = keywords.get("generator")
    if found is None:
        found = next((value for value in arguments if isinstance(value, torch.Generator)), None)
    return found


def drawn_shape(result: Any) -> tuple[int, ...]:
    """The shape of what such an op gives: of its first result."""
    first = result[0] if isinstance(result, (tuple, list)) else result
    return tuple(first.shape)


@contextlib.contextmanager
def abstract_surroundings() -> Iterator[None]:
    """Let an abstract evaluation neither log nor leave fakes in autocast's cache of weights.

    What it fails at, the caller reports itself.
    """
    logger, hushed = logging.getLogger("torch._subclasses.fake_tensor"), _Hushed()
    caches = torch.is_autocast_cache_enabled()
    logger.addFilter(hushed)
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        logger.removeFilter(hushed)
        torch.set_autocast_cache_enabled(caches)
        torch.clear_autocast_cache()  # the function may have switched it on


class _Hushed(logging.Filter):
    """Lets nothing pass that the thread logs which made this."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return threading.get_ident() != self._thread


_CALL = torch.nn.Module._call_impl.__code__


def running_modules(caller: CodeType) -> Iterator[torch.nn.Module]:
    """The modules that this thread is calling, innermost first, up to a call from ``caller``."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not caller:
        # Hooks on `Module.__call__` would be those of all threads.
        if frame.f_code is _CALL:
            yield frame.f_locals["self"]
        frame = frame.f_back


def is_borrowed(value: Any) -> bool:
    """Whether an entry of a module's ``_parameters`` was put there by ``functional_call``.

    It swaps entries of that dict; parameters that a module owns are of their own class.
    """
    return value is not None and not isinstance(value, torch.nn.Parameter)


def caches_parametrizations() -> bool:
    """Whether ``torch.nn.utils.parametrize.cached()`` is on: one cache for all threads."""
    return bool(torch.nn.utils.parametrize._cache_enabled)


class OpenMP:
    """The OpenMP library that torch was linked with, whichever it is.

    ``torch.set_num_threads`` would do for one thread, but it also changes what threads that begin
    later take, the user's among them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._set = library.omp_set_num_threads
        # MKL counts for itself once torch has given it a number in this thread.
        self._set_mkl = getattr(library, "MKL_Set_Num_Threads_Local", None)

    def limit(self, count: int | None = None) -> int:
        """Set how many threads torch uses in calls from this thread; None: leave it.

        Returns:
            How many it used before.
        """
        # Asking makes torch set its own number in a new thread, which would come later and undo
        # ours.
        before = torch.get_num_threads()
        if count is not None and count != before:
            self._set(ctypes.c_int(count))
            if self._set_mkl is not None:
                self._set_mkl(ctypes.c_int(count))
        return before


@functools.cache
def openmp() -> OpenMP | None:
    """Torch's OpenMP library, or None where torch has none."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        try:
            # Looked up from torch's own library, which leads to the OpenMP that it uses, not to
            # another one in the process.
            return OpenMP(ctypes.CDLL(str(folder / name)))
        except (OSError, AttributeError):
            continue
    return None


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor's data pointer means anything: not so for fakes and their like."""
    own = type(tensor).__torch_dispatch__
    return own is torch.Tensor.__torch_dispatch__ or own is torch._C._disabled_torch_dispatch_impl
