"""Modules and other objects that values lead to, and keys that tell things and memory apart."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from typing import Any, TypeVar

import torch

from ..._compat.torch.storages import memory_key
from .careful_access import entries, is_a, own_attributes
from .compared_values import PLAIN

# Containers in containers: how deep modules are looked for.
_DEPTH = 3


T = TypeVar("T")


def modules_in(value: Any) -> Iterator[torch.nn.Module]:
    """The modules that a value is, or holds in containers and attributes; not their parts."""
    return instances_in(value, torch.nn.Module)


def instances_in(
    value: Any, kinds: type[T] | tuple[type[T], ...], depth: int = _DEPTH
) -> Iterator[T]:
    """What a value is, or holds in containers and attributes, that is of these classes."""
    if is_a(value, kinds):
        yield value
    elif depth and is_a(value, (dict, list, tuple, set)):
        # Of long lists of numbers nothing is looked at one by one.
        for item in [one for one in entries(value) if type(one) not in PLAIN]:
            yield from instances_in(item, kinds, depth - 1)
    elif depth and (own := own_attributes(value)) is not None:
        yield from instances_in(own, kinds, depth - 1)


def parts_of(modules: Iterable[torch.nn.Module]) -> list[torch.nn.Module]:
    """All parts of some modules, each once."""
    parts: dict[int, torch.nn.Module] = {}
    for module in modules:
        parts |= {id(part): part for part in module.modules()}
    return list(parts.values())


def keys_of(
    modules: Iterable[torch.nn.Module] = (),
    holders: Iterable[Any] = (),
    tensors: Iterable[torch.Tensor] = (),
) -> list[Hashable]:
    """What tells things apart: objects by identity, tensors by their memory."""
    keys: list[Hashable] = [id(part) for part in parts_of(modules)]
    keys += [id(holder) for holder in holders]
    for tensor in tensors:
        key = memory_of(tensor)
        if key is not None:
            keys.append(key)
    return keys


def memory_of(tensor: torch.Tensor) -> Hashable:
    """Equal for tensors that share memory; None for layouts that have none of their own."""
    key = memory_key(tensor)
    # Marked, so that it is never taken for an object's id.
    return ("memory", key) if key else None
