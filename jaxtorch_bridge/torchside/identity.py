"""Names and digests of torch functions, stable from process to process."""

from __future__ import annotations

import functools
import hashlib
import inspect
import types
from collections.abc import Callable
from typing import Any

import torch

from ..planner.build import stable_text


def name_of(function: Callable[..., Any]) -> str:
    """A readable name: the qualified name, the class of a module, or what a partial wraps."""
    if isinstance(function, functools.partial):
        return name_of(function.func)
    if isinstance(function, torch.nn.Module):
        return type(function).__qualname__
    if inspect.isbuiltin(function):
        return function.__name__
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        return f"{type(owner).__qualname__}.{getattr(function, '__name__', 'call')}"
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return str(name).rpartition("<locals>.")[2]


def code_digest(function: Callable[..., Any]) -> str:
    """16 hex digits over what the function's code says; no memory address enters it.

    Two functions with the same digest may still close over different objects: the op table
    keeps live ops apart by numbering equal keys.
    """
    return hashlib.sha256("\n".join(_facts(function)).encode()).hexdigest()[:16]


def _facts(function: Any) -> list[str]:
    if isinstance(function, functools.partial):
        parts = [stable_text(value) for value in function.args]
        parts += [f"{name}={stable_text(value)}" for name, value in function.keywords.items()]
        return ["partial", *_facts(function.func), *parts]
    if isinstance(function, torch.nn.Module):
        kind = type(function)
        return ["module", f"{kind.__module__}.{kind.__qualname__}", stable_text(function)]
    if inspect.ismethod(function):
        return ["method", *_facts(function.__func__), stable_text(function.__self__)]
    facts = [getattr(function, "__module__", None) or "", name_of(function)]
    code = getattr(function, "__code__", None)
    if code is None:
        return [*facts, stable_text(function)]
    facts += _code_facts(code)
    for value in _closure_values(function):
        facts.append(_value_fact(value))
    facts.append(stable_text(getattr(function, "__defaults__", None)))
    facts.append(stable_text(getattr(function, "__kwdefaults__", None)))
    # What a wrapper calls may close over values of its own.
    inner = getattr(function, "__wrapped__", None)
    return facts if inner is None else [*facts, *_facts(inner)]


def _code_facts(code: types.CodeType) -> list[str]:
    facts = [code.co_code.hex(), repr(code.co_names), repr(code.co_varnames)]
    for constant in code.co_consts:
        facts += (
            _code_facts(constant)
            if isinstance(constant, types.CodeType)
            else [_constant_text(constant)]
        )
    return facts


def _constant_text(constant: object) -> str:
    # A frozenset's order follows the hash seed of the process.
    return repr(sorted(map(repr, constant))) if isinstance(constant, frozenset) else repr(constant)


def _value_fact(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"tensor {value.dtype} {tuple(value.shape)}"
    if inspect.isfunction(value):
        return "\n".join(_code_facts(value.__code__))
    return stable_text(value)


def _closure_values(function: Any) -> list[Any]:
    found = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a name that is not bound yet
            found.append(None)
    return found
