"""What objects held that a function leads to, many steps away, to take fakes back from them.

A snapshot puts back what is near. Further away only what holds fakes is put back, each entry by
itself: all else that code does there stays.
"""

from __future__ import annotations

import collections
import functools
import gc
import types
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch

from ..._compat.torch.fake_tensors import is_fake
from .bytecode_names import BUILTINS, is_of_framework, names_used
from .careful_access import entries, is_a, kind_of, own_attributes, stored_items
from .code_text import UNBOUND, value_of_cell
from .compared_values import PLAIN

# Enough for the helpers of models; who holds more than that holds data.
_MOST = 2000
_LISTS = (list, set, collections.deque)
# Sizes that are symbols mean nothing later, either.
_OF_EVALUATIONS = (torch.Tensor, torch.SymInt, torch.SymFloat, torch.SymBool)
LRU_CACHE = type(functools.lru_cache(len))

# Of each class, by its number.
Slots = dict[int, tuple[types.MemberDescriptorType, ...]]
# Whose value is looked at: how it is read, and how it is put back (`UNBOUND`: there was none).
Place = tuple[Callable[[], Any], Callable[[Any], None]]


class DeepContents:
    """What could be reached from some objects at one time."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self._tables: list[tuple[dict[Any, Any], dict[Any, Any]]] = []
        self._lists: list[tuple[Any, Any]] = []
        self._places: list[tuple[Place, Any]] = []
        self._caches: list[tuple[Any, int]] = []
        self._slots = Slots()
        waiting, seen = list(roots), set[int]()
        while waiting and len(seen) < _MOST:
            value = waiting.pop()
            if id(value) not in seen and _is_open(value):
                seen.add(id(value))
                # Kept alive by what is noted of it, or by who holds it.
                waiting += islice(filter(_is_open, self._note(value)), _MOST)

    def take_fakes_back(self) -> None:
        """Give back what was there wherever something that leads to fakes is now."""
        for cache, size in self._caches:
            if cache.cache_info().currsize != size and keeps_fakes(cache):
                cache.cache_clear()  # entries cannot be taken out one by one
        for table, before in self._tables:
            changed = [
                (key, before.get(key, UNBOUND))
                for key, value in stored_items(table)
                if value is not before.get(key, UNBOUND) and leads_to_fakes(value)
            ]
            for key, was in changed:
                _put(table, key, was)
            if changed:
                _put_in_order(table, before)
        for held, before in self._lists:
            now = entries(held)
            changed_list = len(now) != len(before) or any(map(_differ, now, before))
            if changed_list and any(map(leads_to_fakes, now)):
                kind = kind_of(held)
                kind.clear(held)
                (kind.update if kind is set else kind.extend)(held, before)
        for (read, write), before in self._places:
            value = read()
            if value is not before and leads_to_fakes(value):
                write(before)

    def _note(self, value: Any) -> Iterator[Any]:
        """Keep what a value holds; gives that."""
        if is_a(value, dict):
            self._tables.append((value, dict(stored_items(value))))
        elif is_a(value, _LISTS):
            self._lists.append((value, entries(value)))
        elif is_a(value, types.FunctionType):
            self._note_names(value)
        elif is_a(value, types.MethodType):
            yield value.__self__
            yield value.__func__
            return
        elif is_a(value, type):
            self._note_class(value)
        elif is_a(value, LRU_CACHE):
            self._caches.append((value, value.cache_info().currsize))
        else:
            self._note_slots(value)
            yield type(value)
        own = own_attributes(value)
        if own is not None:
            self._tables.append((own, dict(own)))
        yield from _held_by(value, self._slots)

    def _note_names(self, function: types.FunctionType) -> None:
        for cell in function.__closure__ or ():
            self._places.append((_of_cell(cell), value_of_cell(cell)))
        table = function.__globals__
        for name in set().union(*names_used(function.__code__)) - BUILTINS:
            place = _of_item(table, name)
            self._places.append((place, place[0]()))

    def _note_class(self, kind: type) -> None:
        for name, value in list(type.__getattribute__(kind, "__dict__").items()):
            self._places.append((_of_class(kind, name), value))

    def _note_slots(self, value: Any) -> None:
        for slot in _slots_of(value, self._slots):
            place = _of_slot(value, slot)
            self._places.append((place, place[0]()))


def leads_to_fakes(value: Any) -> bool:
    """Whether a fake can be reached from a value."""
    # However much containers hold: this is asked of what has changed while fakes are left.
    waiting, seen, slots, objects = [value], set[int](), Slots(), 0
    while waiting and objects < _MOST:
        one = waiting.pop()
        if is_a(one, _OF_EVALUATIONS):
            if not is_a(one, torch.Tensor) or is_fake(one):
                return True
        elif id(one) not in seen and (is_a(one, (tuple, frozenset)) or _is_open(one)):
            seen.add(id(one))
            objects += not is_a(one, (dict, list, tuple, set, frozenset))
            waiting += _held_by(one, slots)
    return False


def keeps_fakes(cache: Any) -> bool:
    """Whether a ``functools.lru_cache`` has results that lead to fakes."""
    # They are no attributes: with a limit it holds them itself, without one in a table.
    held = [one for one in gc.get_referents(cache) if not is_a(one, (types.FunctionType, type))]
    tables = [one for one in held if is_a(one, dict)]
    kept = [one for one in held if not is_a(one, dict)]
    return any(map(leads_to_fakes, [*kept, *(v for table in tables for v in table.values())]))


def _held_by(value: Any, slots: Slots) -> Iterator[Any]:
    """What a value holds itself."""
    if is_a(value, (dict, list, tuple, set, frozenset)):
        yield from entries(value)
    elif is_a(value, types.FunctionType):
        yield from map(value_of_cell, value.__closure__ or ())
        table = value.__globals__
        yield from (table.get(name) for name in names_used(value.__code__)[0] - BUILTINS)
    elif is_a(value, type):
        yield from type.__getattribute__(value, "__dict__").values()
    else:
        yield from (_of_slot(value, slot)[0]() for slot in _slots_of(value, slots))
    yield from entries(own_attributes(value) or {})


def _is_open(value: Any) -> bool:
    """Whether to look into a value."""
    if is_a(value, (*PLAIN, torch.Tensor, types.ModuleType, types.BuiltinFunctionType)):
        return False
    if is_a(value, (dict, list, tuple, set)):
        return True
    return not is_of_framework(value)


def _differ(one: Any, other: Any) -> bool:
    return one is not other


def _put(table: dict[Any, Any], key: Any, value: Any) -> None:
    kind = kind_of(table)
    if value is UNBOUND:
        kind.pop(table, key, None)
    else:
        kind.__setitem__(table, key, value)


def _put_in_order(table: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Keys that were there before come first again, in their order."""
    now = dict(stored_items(table))
    old = [key for key in before if key in now]
    if old != [key for key in now if key in before]:
        kind = kind_of(table)
        ordered = {key: now[key] for key in [*old, *(key for key in now if key not in before)]}
        kind.clear(table)
        for key, value in ordered.items():
            kind.__setitem__(table, key, value)


def _of_item(table: dict[str, Any], name: str) -> Place:
    return lambda: table.get(name, UNBOUND), lambda value: _put(table, name, value)


def _of_cell(cell: types.CellType) -> Place:
    def write(value: Any) -> None:
        if value is UNBOUND:
            del cell.cell_contents
        else:
            cell.cell_contents = value

    return lambda: value_of_cell(cell), write


def _of_class(kind: type, name: str) -> Place:
    def write(value: Any) -> None:
        # Not by the class's own `__setattr__`.
        if value is UNBOUND:
            type.__delattr__(kind, name)
        else:
            type.__setattr__(kind, name, value)

    return lambda: type.__getattribute__(kind, "__dict__").get(name, UNBOUND), write


def _of_slot(value: Any, slot: types.MemberDescriptorType) -> Place:
    def read() -> Any:
        try:
            return slot.__get__(value)
        except AttributeError:
            return UNBOUND

    def write(before: Any) -> None:
        if before is UNBOUND:
            slot.__delete__(value)
        else:
            slot.__set__(value, before)

    return read, write


def _slots_of(value: Any, known: Slots) -> tuple[types.MemberDescriptorType, ...]:
    # By number: a class may have no hash.
    found = known.get(id(type(value)))
    if found is None:
        found = known[id(type(value))] = tuple(
            one
            for part in type(value).__mro__
            if not is_of_framework(part)
            for one in vars(part).values()
            if is_a(one, types.MemberDescriptorType)
        )
    return found
