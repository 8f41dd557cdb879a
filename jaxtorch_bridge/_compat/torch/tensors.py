"""What torch keeps of tensors and modules. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import operator
from typing import Any

import torch

# How often a tensor's memory was written to; not of inference tensors, which do not count. In C:
# it is asked of all that autograd saves.
write_count = operator.attrgetter("_version")


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor's memory was written to; -1 for inference tensors, which do not count."""
    return -1 if tensor.is_inference() else int(tensor._version)


def base_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor that autograd takes a tensor for a view of."""
    return tensor._base


def has_hooks(tensor: torch.Tensor) -> bool:
    """Whether a tensor has hooks of ``register_hook``."""
    return bool(tensor._backward_hooks)


def own_parameters(module: torch.nn.Module) -> dict[str, torch.nn.Parameter | None]:
    """The table in which a module itself, without its layers, keeps its parameters."""
    return module._parameters


def own_buffers(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    """The table in which a module itself, without its layers, keeps its buffers."""
    return module._buffers


# A module has these from the beginning; its class may name other things alike.
# What every module has, whatever its class.
OF_EVERY_MODULE = frozenset(vars(torch.nn.Module()))
HOOK_TABLES = tuple(name for name in vars(torch.nn.Module()) if name.endswith("_hooks"))


def hook_tables(module: torch.nn.Module) -> dict[str, dict[int, Any]]:
    """The tables in which a module itself keeps its hooks, by numbers never given twice."""
    own = vars(module)
    found = {name: own.get(name) for name in HOOK_TABLES}
    return {name: table for name, table in found.items() if isinstance(table, dict)}


def is_training(module: torch.nn.Module) -> bool | None:
    """Whether a module is in training mode; None where ``torch.jit.freeze`` has taken that away."""
    try:
        return module.training
    except AttributeError:
        return None
