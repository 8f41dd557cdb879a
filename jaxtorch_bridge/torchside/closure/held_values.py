"""What the objects and containers hold that a function refers to, as a picture to compare.

A captured graph has these values as constants, where the function's own calls read them anew.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch

from .bytecode_names import is_of_framework
from .careful_access import entries, is_a, own_attributes, stored_items
from .compared_values import PLAIN, Same, compared

# Enough for configurations; who holds more than that holds data.
_MOST = 1000

# An object or container, and an attribute, key or position in it; None: how many there are. Both,
# and what stands there, are kept alive by a picture, or another object could pass for one of them.
Place = tuple[Same, Hashable]
Picture = Mapping[Place, Hashable]


class HeldValues:
    """Pictures of what is held, without what the function itself changes when it runs."""

    def __init__(self) -> None:
        # A count of calls, or a cache: with it every run would be another one's.
        self._moved: set[Place] = set()

    def picture(self, holders: Sequence[Any]) -> Picture:
        """What can be reached from some objects and containers."""
        found: dict[Place, Hashable] = {}
        waiting, seen = list(holders), set[int]()
        while waiting and len(found) < _MOST:
            held = waiting.pop()
            if id(held) in seen:
                continue
            seen.add(id(held))
            owner, count = Same(held), 0
            for name, value in _places(held):
                count += 1
                found[owner, name] = compared(value)
                if _leads_on(value):
                    waiting.append(value)
            found[owner, None] = count
        return found

    def note_changes(self, before: Picture, after: Picture) -> None:
        """What a run of the function has changed is no sign of anything."""
        self._moved.update(self._changed(before, after))

    def same(self, before: Picture, after: Picture) -> bool:
        """Whether nothing has changed but what the function itself changes."""
        if before == after:
            return True
        return all(
            place in self._moved or (place[0], None) in self._moved
            for place in self._changed(before, after)
        )

    def _changed(self, before: Picture, after: Picture) -> Iterator[Place]:
        missing = object()
        for place in {**before, **after}:
            if before.get(place, missing) != after.get(place, missing):
                yield place


def _places(held: Any) -> Iterator[tuple[Hashable, Any]]:
    if is_a(held, dict):
        yield from ((compared(key), value) for key, value in stored_items(held))
    elif is_a(held, (list, tuple)):
        yield from enumerate(entries(held))
    elif is_a(held, (set, frozenset)):
        yield from ((key, None) for key in map(compared, entries(held)))
    else:
        for kind in reversed(type(held).__mro__):
            if not is_of_framework(kind) and kind.__module__ != "builtins":
                yield from ((name, value) for name, value in vars(kind).items() if _is_set(value))
        yield from stored_items(own_attributes(held) or {})


def _is_set(value: Any) -> bool:
    """Whether it is what a class holds rather than does."""
    return is_a(value, (*PLAIN, torch.Tensor, list, dict, tuple, set))


def _leads_on(value: Any) -> bool:
    if is_a(value, (*PLAIN, torch.Tensor, torch.nn.Module, type)) or callable(value):
        return False
    if is_a(value, (list, dict, tuple, set, frozenset)):
        return True
    return own_attributes(value) is not None and not is_of_framework(value)
