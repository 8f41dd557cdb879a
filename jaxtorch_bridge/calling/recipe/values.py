"""Static values as data, and back: exact, with their types."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import torch

from .class_names import class_of_name, name_of_class
from .not_data import NotDataError, RecipeError

# Of containers in containers: far below what Python's recursion allows.
MOST_LEVELS = 50

# What `torch.NAME` is written as.
_TORCH_KINDS: dict[str, type] = {
    "dtype": torch.dtype,
    "memory_format": torch.memory_format,
    "layout": torch.layout,
}


def value_data(value: Any, level: int = 0) -> Any:
    """A value as data.

    Raises:
        NotDataError: It is no plain value.
    """
    if level > MOST_LEVELS:
        raise NotDataError(f"a value is nested in more than {MOST_LEVELS} others")
    kind = type(value)
    # By the exact class: a subclass may be anything. JSON tells these apart by itself.
    if value is None or kind in (bool, int, str):
        return value
    if value is ...:
        return {"ellipsis": []}
    if kind is float:
        return {"float": value.hex()}  # also of those that JSON does not know
    if kind is complex:
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind in (tuple, list, torch.Size):
        return {_SEQUENCE_NAMES[kind]: [value_data(item, level + 1) for item in value]}
    if kind is frozenset:
        # In an order that is the same in every process.
        return {"frozenset": [value_data(item, level + 1) for item in sorted(value, key=repr)]}
    if kind is dict:
        return {"dict": [[value_data(item, level + 1) for item in pair] for pair in value.items()]}
    if kind is torch.device:
        return {"device": str(value)}
    for name, torch_kind in _TORCH_KINDS.items():
        if kind is torch_kind:
            return {name: str(value).removeprefix("torch.")}
    if isinstance(value, enum.Enum) and kind.__members__.get(value.name) is value:
        return {"enum": [name_of_class(kind), value.name]}
    raise NotDataError(f"a value is of the class `{kind.__module__}.{kind.__qualname__}`")


def read_value(data: Any, level: int = 0) -> Any:
    """The value that data stand for.

    Raises:
        RecipeError: They stand for none.
    """
    if level > MOST_LEVELS:
        raise RecipeError(f"a value is nested in more than {MOST_LEVELS} others")
    if data is None or type(data) in (bool, int, str):
        return data
    if type(data) is not dict or len(data) != 1:
        raise RecipeError("expected a value as its kind and content")
    ((name, content),) = data.items()
    try:
        if name in _SEQUENCES:
            return _SEQUENCES[name]([read_value(item, level + 1) for item in _list(content)])
        if name == "dict":
            return {
                read_value(key, level + 1): read_value(item, level + 1)
                for key, item in map(_list, _list(content))
            }
        if name in _TORCH_KINDS:
            return _of_torch(name, content)
        return _SCALARS[name](content)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise RecipeError(f"no value of the kind `{str(name)[:40]}` is written so") from error


def _list(content: Any) -> list[Any]:
    if type(content) is not list:
        raise TypeError("expected a list")
    return content


def _of_torch(name: str, content: Any) -> Any:
    found = vars(torch).get(content)
    if type(found) is not _TORCH_KINDS[name]:
        raise TypeError(f"no {name}")
    return found


def _member(content: Any) -> enum.Enum:
    name, member = _list(content)
    kind = class_of_name(name)
    if not issubclass(kind, enum.Enum):
        raise TypeError("no enumeration")
    return kind.__members__[member]


def _complex(content: Any) -> complex:
    real, imaginary = _list(content)
    return complex(float.fromhex(real), float.fromhex(imaginary))


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "ellipsis": lambda _: ...,
    "float": float.fromhex,
    "complex": _complex,
    "bytes": bytes.fromhex,
    "device": lambda text: torch.device(str(text)),
    "enum": _member,
}
_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "list": list,
    "size": torch.Size,
    "frozenset": frozenset,
}
_SEQUENCE_NAMES: dict[type, str] = {tuple: "tuple", list: "list", torch.Size: "size"}
