"""Look at objects that nobody here wrote, without failing at what looking at them runs.

An attribute may be a property that computes or a lookup that raises, a class may say that it is
another, a container may hand out its entries its own way. None of this is part of a call: what
cannot be looked at is left out, and the call goes on.
"""

from __future__ import annotations

import collections
import inspect
from typing import Any


def is_a(value: Any, kinds: Any) -> bool:
    """As ``isinstance``, by the type alone: an object's ``__class__`` may be a property."""
    return issubclass(type(value), kinds)


def attribute(value: Any, name: str, default: Any = None) -> Any:
    """As ``getattr`` with a default, which also stands for whatever else the lookup raises."""
    try:
        return getattr(value, name, default)
    except Exception:
        return default


def present_attribute(value: Any, name: str, default: Any = None) -> Any:
    """As `attribute`, where it is there; ``__getattr__`` is not asked for what is not."""
    missing = object()
    try:
        if inspect.getattr_static(value, name, missing) is missing:
            return default
    except Exception:
        return default
    return attribute(value, name, default)


def own_attributes(value: Any) -> dict[str, Any] | None:
    """The dict of an object's attributes; None if it has none of Python's own.

    Classes, whose attributes are behind a proxy, have none here.
    """
    try:
        found = object.__getattribute__(value, "__dict__")
    except Exception:
        return None
    return found if isinstance(found, dict) else None


def stored_items(table: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """What a dict holds. One that makes its values when they are asked for is not asked."""
    # An `OrderedDict` has an order that `dict` does not know.
    kind = collections.OrderedDict if type(table) is collections.OrderedDict else dict
    return list(kind.items(table))


def entries(container: Any) -> list[Any]:
    """The values of a dict, the items of a sequence or set; none if it does not hand them out."""
    if is_a(container, dict):
        return [value for _, value in stored_items(container)]
    try:
        return list(container)
    except Exception:
        return []


def unwrapped(function: Any) -> Any:
    """What decorators that say so (``functools.wraps``) stand around."""
    seen = {id(function)}
    while True:
        inner = present_attribute(function, "__wrapped__")
        if inner is None or id(inner) in seen:
            return function
        seen.add(id(inner))
        function = inner
