"""Names and digests of torch functions, stable from process to process."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch

from ..inspection.careful_access import attribute
from .behaviour_text import behaviour_of


def name_of(function: Callable[..., Any]) -> str:
    """A readable name: the qualified name, the class of a module, or what a partial wraps."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    if isinstance(function, torch.nn.Module):
        return type(function).__qualname__
    if inspect.isbuiltin(function):
        return function.__name__
    owner = attribute(function, "__self__")
    if owner is not None and not isinstance(owner, types.ModuleType):
        return f"{type(owner).__qualname__}.{attribute(function, '__name__', 'call')}"
    name = attribute(function, "__qualname__") or type(function).__qualname__
    return str(name).rpartition("<locals>.")[2]


def code_digest(
    function: Callable[..., Any], *static: Any, state: Iterable[torch.Tensor] = ()
) -> tuple[str, bool]:
    """16 hex digits over what decides what a function does, and whether it has state beyond that.

    No memory address enters the digest. Functions with equal ones may still close over different
    state (weights, say): the op table keeps live ops apart by numbering equal keys.

    Args:
        function: The torch function.
        static: Values that it is called with.
        state: Tensors that it writes to, whose contents do not count.
    """
    lines, stateful = behaviour_of(function, *static, state=state)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16], stateful
