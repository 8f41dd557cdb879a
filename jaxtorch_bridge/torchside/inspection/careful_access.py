"""Look at objects that nobody here wrote, without failing at what looking at them runs.

An attribute may be a property that computes or a lookup that raises, a class may say that it is
another, a container may hand out its entries its own way. None of this is part of a call: what
cannot be looked at is left out, and the call goes on.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import inspect
import threading
import types
from collections.abc import Mapping
from typing import Any

_KINDS = (collections.OrderedDict, dict, list, tuple, set, frozenset, collections.deque)

# What the interpreter and libraries keep in a class beside what its source says.
NOT_OF_THE_SOURCE = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
        *("__static_attributes__", "__parameters__", "__orig_bases__", "__type_params__"),
        *(
            "__abstractmethods__",
            "_abc_impl",
            "__dataclass_fields__",
            "__dataclass_params__",
            "__signature__",
        ),
    )
)


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
    # One of these has attributes for each thread.
    kind = threading.local if is_a(value, threading.local) else object
    try:
        found = kind.__getattribute__(value, "__dict__")
    except Exception:
        return None
    return found if isinstance(found, dict) else None


def bases_of(kind: type) -> tuple[type, ...]:
    """A class and those that it inherits from, whatever its metaclass says."""
    found: tuple[type, ...] = type.__dict__["__mro__"].__get__(kind)
    return found


def class_attributes(kind: type) -> Mapping[str, Any]:
    """What stands in a class itself, likewise."""
    found: Mapping[str, Any] = type.__dict__["__dict__"].__get__(kind)
    return found


def slots_of(value: Any) -> list[tuple[str, Any]]:
    """The attributes that stand in ``__slots__``, as far as they are set."""
    found = []
    for kind in bases_of(type(value)):
        attributes = class_attributes(kind)
        if "__slots__" not in attributes:
            continue
        for name, slot in list(attributes.items()):
            if type(slot) is types.MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # not set
                    found.append((name, slot.__get__(value)))
    return found


def stored_items(table: dict[Any, Any]) -> list[tuple[Any, Any]]:
    """What a dict holds. One that makes its values when they are asked for is not asked."""
    # An `OrderedDict` has an order that `dict` does not know.
    kind: Any = dict if type(table) is dict else kind_of(table)
    return list(kind.items(table))


def behind_proxy(proxy: types.MappingProxyType[Any, Any]) -> Any:
    """The mapping behind a proxy, which would ask that for its entries in its own way."""
    return gc.get_referents(proxy)[0]


def kind_of(container: Any) -> Any:
    """Which of Python's own kinds a dict, list, tuple, set or deque is.

    Its methods are asked in place of a subclass's, which may do anything.
    """
    return next(kind for kind in _KINDS if is_a(container, kind))


def entries(container: Any) -> list[Any]:
    """The values of a dict, the items of a list, tuple, set or deque."""
    if is_a(container, dict):
        return [value for _, value in stored_items(container)]
    kind: Any = type(container)
    if kind is not list and kind is not tuple:
        kind = kind_of(container)
    return list(kind.__iter__(container))


def unwrapped(function: Any) -> Any:
    """What decorators that say so (``functools.wraps``) stand around."""
    seen = {id(function)}
    while True:
        inner = present_attribute(function, "__wrapped__")
        if inner is None or id(inner) in seen:
            return function
        seen.add(id(inner))
        function = inner
