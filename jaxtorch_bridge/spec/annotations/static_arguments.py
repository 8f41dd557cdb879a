"""Static arguments as annotations give them: ``causal: bool = False``."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Sequence
from typing import Any

from ..language.static_arguments import Scalar, StaticSpec, StaticType
from .shapes import NotReadable

_NAMES = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}
_LISTS = (tuple, list, Sequence)


def read_static(annotation: Any, default: Any) -> StaticSpec:
    """The static argument with this annotation and this default.

    Raises:
        NotReadable: The annotation is no plain type, or the default no plain value.
    """
    data: dict[str, Any] = {}
    if annotation is inspect.Parameter.empty:
        raise NotReadable("no annotation")
    choices = _choices(annotation)
    if choices is not None:
        data["choices"] = choices
    else:
        # Each once: `tuple[int, ...] | list[int]` is one type to a contract.
        names = dict.fromkeys(_names(annotation))
        if default is None:
            names["null"] = None  # `x: str = None`, as people write it
        data["type"] = StaticType(tuple(names))
    if default is not inspect.Parameter.empty:
        data["default"] = _value(default)
    try:
        return StaticSpec.model_validate(data)
    except ValueError as error:
        raise NotReadable(f"the default {default!r:.60} is not of its type") from error


def _choices(annotation: Any) -> list[Any] | None:
    if typing.get_origin(annotation) is not typing.Literal:
        return None
    values = list(typing.get_args(annotation))
    if not all(isinstance(one, Scalar) for one in values):
        raise NotReadable("choices that no contract can have")
    return values


def _names(annotation: Any) -> list[str]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None:
        return ["null"]
    if isinstance(annotation, type) and annotation in _NAMES:
        return [_NAMES[annotation]]
    if origin in (typing.Union, types.UnionType):
        return [name for one in arguments for name in _names(one)]
    if origin in _LISTS:
        kinds = set(arguments) - {...}
        if len(kinds) == 1 and kinds <= {bool, int, float, str}:
            return [f"list[{_NAMES[kinds.pop()]}]"]
    raise NotReadable("neither an array with a shape nor a plain type")


def _value(default: Any) -> Any:
    parts = default if isinstance(default, (tuple, list)) else (default,)
    if all(isinstance(one, Scalar) for one in parts):
        return default
    raise NotReadable(f"the default {default!r:.60} is no plain value")
