"""The arguments of a call that a contract allows."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jax
import torch

from ...spec.array_tree import Node
from ...spec.language.frozen_mapping import FrozenDict
from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec
from .cases import Case, Path
from .named_function import Subject

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

# Makes one array: its path, shape and dtype.
Make = Callable[[Path, tuple[int, ...], str], Any]


def arguments_of(
    subject: Subject, case: Case, make: Make
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of the function; optional inputs may be left out.

    Groups are dicts, or what the function's annotation says: a dataclass or a named tuple.
    """
    hints = _hints_of(subject.function)
    values: dict[str, Any] = {}
    for name, node in subject.spec.inputs.items():
        value = _value(subject.spec, node, (name,), case, make, hints.get(name))
        if value is not None:
            values[name] = value
    values.update(case.static)
    return by_position(subject.function, values)


def with_key(
    subject: Subject, arguments: tuple[tuple[Any, ...], dict[str, Any]]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of the JAX function, which takes a random key where the contract says so."""
    args, kwargs = arguments
    if subject.spec.random == "key":
        kwargs = {**kwargs, "rng": jax.random.key(0)}
    return args, kwargs


def _value(spec: CallableSpec, node: Node, path: Path, case: Case, make: Make, hint: Any) -> Any:
    if isinstance(node, TensorSpec):
        if path in case.without:
            return None
        return make(path, case.shape_of(node.shape), case.dtype_of(spec, path, node))
    if isinstance(node, FrozenDict):
        fields = _fields_of(hint)
        found = {
            name: _value(spec, child, (*path, name), case, make, fields.get(name))
            for name, child in node.items()
        }
        if fields and set(found) <= set(fields):
            return hint(**found)
        # An optional array of a dict is not there.
        return {name: value for name, value in found.items() if value is not None}
    items = [_value(spec, child, (*path, str(i)), case, make, None) for i, child in enumerate(node)]
    return tuple(items) if typing.get_origin(hint) is tuple else items


def _fields_of(hint: Any) -> dict[str, Any]:
    """The fields of a dataclass or a named tuple with their annotations; none for others."""
    if not inspect.isclass(hint):
        return {}
    if dataclasses.is_dataclass(hint):
        names = [field.name for field in dataclasses.fields(hint) if field.init]
    else:
        names = list(getattr(hint, "_fields", ()))
    hints = _hints_of(hint)
    return {name: hints.get(name) for name in names}


def _hints_of(thing: Any) -> dict[str, Any]:
    described = thing.forward if isinstance(thing, torch.nn.Module) else thing
    try:
        return typing.get_type_hints(described)
    except Exception:  # names that only exist while type checking
        return {}


def by_position(
    function: Callable[..., Any], values: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, by position as far as there is no gap, and else by name."""
    described = function.forward if isinstance(function, torch.nn.Module) else function
    args = []
    try:
        parameters = inspect.signature(described).parameters
    except (TypeError, ValueError):  # builtins have none: all by position, as the contract says
        return tuple(values.values()), {}
    for name, parameter in parameters.items():
        if parameter.kind not in _BY_POSITION or name not in values:
            break
        args.append(values.pop(name))
    return tuple(args), values
