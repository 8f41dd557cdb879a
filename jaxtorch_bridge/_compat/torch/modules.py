"""What torch keeps of modules, and of their calls. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FrameType
from typing import Any

import torch


def own_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter | None]:
    """The table in which a module itself, without its layers, keeps its parameters."""
    return module._parameters


def own_buffers(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    """The table in which a module itself, without its layers, keeps its buffers."""
    return module._buffers


# What every module has, whatever its class.
OF_EVERY_MODULE = frozenset(vars(torch.nn.Module()))
# A module has these from the beginning; its class may name other things alike.
HOOK_TABLES = tuple(name for name in vars(torch.nn.Module()) if name.endswith("_hooks"))


def hook_tables(module: torch.nn.Module) -> dict[str, dict[int, Any]]:
    """The tables in which a module itself keeps its hooks, by numbers never given twice."""
    own = vars(module)
    found = {name: own.get(name) for name in HOOK_TABLES}
    return {name: table for name, table in found.items() if isinstance(table, dict)}


_OF_ALL_MODULES: dict[str, dict[int, Any]] = {
    name: getattr(torch.nn.modules.module, name)
    for name in (
        "_global_backward_pre_hooks",
        "_global_backward_hooks",
        "_global_forward_pre_hooks",
        "_global_forward_hooks",
    )
}


def hooks_of_all_modules() -> tuple[tuple[int, ...], ...]:
    """The hooks that every module has, by numbers never given twice; empty if there are none."""
    tables = _OF_ALL_MODULES.values()
    return tuple(map(tuple, tables)) if any(tables) else ()


def has_backward_hooks(modules: Iterable[torch.nn.Module]) -> bool:
    """Whether these modules, their parts, or all modules have hooks on their backward."""
    everywhere = (table for name, table in _OF_ALL_MODULES.items() if "backward" in name)
    return any(everywhere) or any(
        table
        for module in modules
        for part in module.modules()
        for name, table in hook_tables(part).items()
        if "backward" in name
    )


def is_training(module: torch.nn.Module) -> bool | None:
    """Whether a module is in training mode; None where ``torch.jit.freeze`` has taken that away."""
    try:
        return module.training
    except AttributeError:
        return None


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


def is_scripted(value: Any) -> bool:
    """Whether TorchScript runs a value: functorch's transforms are silently wrong on it.

    Its profiling executor specialises a graph after some runs, and then hides from nested
    transforms what it does.
    """
    # By the type: what an object says that it is may be code of its own.
    if issubclass(type(value), torch.nn.Module):
        return any(isinstance(part, torch.jit.ScriptModule) for part in value.modules())
    return issubclass(type(value), (torch.jit.ScriptFunction, torch._C.ScriptMethod))
