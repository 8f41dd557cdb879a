"""What a module's attributes lead to besides layers and tensors: containers and objects.

A copy of the module's structure shares these with the module, until a call is seen to change one.
"""

from __future__ import annotations

import collections
import enum
import sys
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..inspection.bytecode_names import is_of_framework
from ..inspection.careful_access import own_attributes, stored_items

_PLAIN = (bool, int, float, str, type(None))
# How deep they are looked for.
_DEPTH = 4
_CONTAINERS = (dict, list, set, collections.deque)
_BUILTIN = (*_CONTAINERS, collections.OrderedDict, collections.defaultdict, collections.Counter)
# Of a module's attributes: these hold layers and tensors.
_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
# As attributes these are every copy's own anyway.
_OWN = (dict, collections.OrderedDict, list)


@dataclass(frozen=True, eq=False)
class Held:
    """One of them.

    Attributes:
        part: The name of the module's part that it was found in.
        path: How it is reached from there.
        owner: The container or object.
        plain: Only containers of Python's own lead to it, and it is one.
    """

    part: str
    path: str
    owner: Any
    plain: bool

    @property
    def key(self) -> tuple[str, str]:
        """The same in every copy of the module."""
        return self.part, self.path

    @property
    def container(self) -> Any:
        """What holds its state."""
        return self.owner if isinstance(self.owner, _CONTAINERS) else vars(self.owner)

    def words(self, key: Any) -> str:
        """What a person would call one entry."""
        last = f"[{key!r}]" if isinstance(self.owner, _CONTAINERS) else f".{key}"
        return f"{self.part}.{self.path}{last}" if self.part else f"{self.path}{last}"


def held_in(parts: Iterable[tuple[str, torch.nn.Module]]) -> list[Held]:
    """What some parts of a module hold, each once, besides containers that are attributes."""
    seen: set[int] = set()
    found: list[Held] = []
    for name, part in parts:
        for attribute, value in list(vars(part).items()):
            if attribute in _TABLES or type(value) in _PLAIN:
                continue
            inside = [(attribute, value)]
            if type(value) in _OWN:
                inside = [(f"{attribute}[{key!r}]", item) for key, item in items_of(value)]
            for path, item in inside:
                # `seen` is shared, so that what two parts hold is found once.
                found += _held(name, path, item, seen, _DEPTH, plain=True)
    return found


def caches_of(parts: Iterable[tuple[str, torch.nn.Module]]) -> list[Any]:
    """What ``functools.lru_cache`` keeps for methods of the parts' classes."""
    classes = {
        base for _, part in parts for base in type(part).__mro__ if not is_of_framework(base)
    }
    # A static or class method holds the function that has the cache.
    found = [
        getattr(value, "__func__", value) for base in classes for value in list(vars(base).values())
    ]
    return [v for v in found if hasattr(v, "cache_clear") and hasattr(v, "cache_info")]


def items_of(container: Any) -> list[tuple[Any, Any]]:
    """The entries of a container by key or place; those of a set by themselves."""
    if isinstance(container, dict):
        return stored_items(container)
    if isinstance(container, set):
        return [(item, item) for item in container]
    return list(enumerate(container))


def put_into(container: Any, items: Iterable[tuple[Any, Any]]) -> None:
    """Let a container hold these entries, and no others."""
    container.clear()
    if isinstance(container, dict):
        container.update(items)
    else:
        add = container.update if isinstance(container, set) else container.extend
        add(value for _, value in items)


def _held(
    part: str, path: str, value: Any, seen: set[int], depth: int, *, plain: bool
) -> Iterator[Held]:
    if not depth or id(value) in seen:
        return
    if type(value) is tuple:
        entries = [(f"{path}[{key!r}]", item) for key, item in enumerate(value)]
    elif isinstance(value, _CONTAINERS) or is_users_object(value):
        # Before its entries, which may lead back to it.
        seen.add(id(value))
        plain = plain and type(value) in _BUILTIN
        held = Held(part, path, value, plain)
        yield held
        inside = "[{!r}]" if held.container is value else ".{}"
        entries = [(path + inside.format(key), item) for key, item in items_of(held.container)]
    else:
        return
    for inner, item in entries:
        yield from _held(part, inner, item, seen, depth - 1, plain=plain)


def is_users_object(value: Any) -> bool:
    """Whether a value is an object with attributes of a class that somebody wrote for it."""
    kind = type(value)
    if own_attributes(value) is None:
        return False
    if issubclass(kind, (torch.nn.Module, torch.Tensor, type, types.ModuleType, enum.Enum)):
        return False
    root = kind.__module__.partition(".")[0]
    # A SimpleNamespace is Python's, but holds what its user puts in.
    standard = root in sys.stdlib_module_names and kind is not types.SimpleNamespace
    return not (standard or is_of_framework(kind))
