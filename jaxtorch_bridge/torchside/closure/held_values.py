"""What the objects and containers hold that a function refers to, as a picture to compare.

A captured graph has these values as constants, where the function's own calls read them anew.
"""

from __future__ import annotations

import collections
import contextvars
import marshal
import threading
import types
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..._compat.torch.modules import OF_EVERY_MODULE, hook_tables
from ...errors import BridgeWarning
from .bytecode_names import BUILTINS, is_of_framework, names_used
from .careful_access import (
    bases_of,
    behind_proxy,
    class_attributes,
    entries,
    is_a,
    own_attributes,
    slots_of,
    stored_items,
)
from .code_text import value_of_cell
from .compared_values import PLAIN, Same, buffer_content, compared, is_buffer
from .deep_contents import leads_to_fakes
from .defining_package import is_installed

# Looking at one takes some 3 us. Who holds more than that holds data.
_MOST = 10_000
# Containers of so many numbers and texts are compared as a whole, some hundred times as fast.
_LONG = 64
_PER_PLACE = 100

# What else code reads numbers from. Torch's own objects are not looked into but for these.
LOOKED_INTO = (
    types.MappingProxyType,
    contextvars.ContextVar,
    threading.local,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
)
_AROUND_FUNCTIONS = (property, staticmethod, classmethod)
_CONTAINERS = (list, dict, tuple, set, frozenset, collections.deque)

# An object or container, and an attribute, key or position in it; None: how many there are. Both,
# and what stands there, are kept alive by a picture, or another object could pass for one of them.
Place = tuple[Same, Hashable]
Picture = Mapping[Place, Hashable]


@dataclass(frozen=True)
class _Row:
    """A long list, tuple or dict of numbers and texts alone."""

    content: bytes
    names: Sequence[Any] = field(compare=False, hash=False)
    values: Sequence[Any] = field(compare=False, hash=False)

    def changed(self, before: object) -> list[Hashable]:
        """The keys or positions of what differs; None among them: some are new or gone."""
        if not isinstance(before, _Row):
            return [None]
        was, now = before._table(), self._table()
        changed: list[Hashable] = [None] if was.keys() != now.keys() else []
        return changed + [name for name in now if name in was and was[name] != now[name]]

    def _table(self) -> dict[Hashable, Hashable]:
        pairs = zip(self.names, self.values, strict=True)
        return {compared(name): compared(value) for name, value in pairs}


@dataclass(frozen=True)
class _Order:
    """In what order keys stand."""

    names: tuple[Hashable, ...]


class HeldValues:
    """Pictures of what is held, without what the function itself changes when it runs."""

    def __init__(self) -> None:
        # A count of calls, or a cache: with it every run would be another one's.
        self._moved: set[Place] = set()
        # The kind of object in which the last picture ends, if that is not all.
        self._left_out = ""
        self._told = False

    def picture(self, holders: Sequence[Any], modules: Sequence[torch.nn.Module] = ()) -> Picture:
        """What can be reached from some objects and containers.

        Args:
            holders: These.
            modules: Whose numbers, tensors, hooks and parts are watched by other means.
        """
        watched = set(map(id, modules))
        found: dict[Place, Hashable] = {}
        waiting, seen = [*holders, *modules], set[int]()
        room = _MOST
        self._left_out = ""
        while waiting:
            held = waiting.pop()
            if id(held) in seen:
                continue
            if room <= len(found):
                self._left_out = type(held).__name__
                break
            seen.add(id(held))
            row = _row(held)
            if row is not None:
                found[Same(held), None] = row
                room -= len(row.values) // _PER_PLACE
                continue
            if is_buffer(held):
                found[Same(held), None] = buffer_content(held)
                continue
            owner, count = Same(held), 0
            places = _places(held)
            if is_a(held, torch.nn.Module) and id(held) not in watched:
                places = _places_of_module(held)
            for name, value in places:
                count += 1
                found[owner, name] = value if is_a(value, _Order) else compared(value)
                if is_buffer(value):
                    waiting.append(value)
                if _leads_on(held, value):
                    waiting.append(value)
            found[owner, None] = count
            waiting += _classes_of(held)
        return found

    def note_changes(self, before: Picture, after: Picture) -> None:
        """What a run of the function has changed is no sign of anything."""
        known = {owner for owner, _ in before}
        self._moved.update(
            (owner, name)
            for owner, name in self._changed(before, after)
            # What an evaluation has made is let go of; here it would be kept for ever.
            if owner in known or not leads_to_fakes(owner.held)
        )

    def same(self, before: Picture, after: Picture) -> bool:
        """Whether nothing has changed but what the function itself changes."""
        if before == after:
            return True
        # Of what it adds to or takes from, not all the rest.
        return all(
            place in self._moved
            or ((place[0], None) in self._moved and (place in before) != (place in after))
            for place in self._changed(before, after)
        )

    def tell_of_the_rest(self) -> None:
        """Warn once if pictures are not of all that is held."""
        if self._left_out and not self._told:
            self._told = True
            warnings.warn(
                f"a torch function refers to objects that hold more than {_MOST:,} values, the "
                f"rest of them in a {self._left_out}. Eager second derivatives and batches do not "
                "see when the rest changes. Pass what changes as an argument.",
                BridgeWarning,
                stacklevel=2,
            )

    def _changed(self, before: Picture, after: Picture) -> Iterator[Place]:
        missing = object()
        for place in {**before, **after}:
            was, now = before.get(place, missing), after.get(place, missing)
            if was == now:
                continue
            if isinstance(now, _Row):
                yield from ((place[0], name) for name in now.changed(was))
            else:
                yield place


def _row(held: Any) -> _Row | None:
    """A picture of a whole container, if it is long and holds nothing but numbers and texts."""
    if type(held) not in (dict, list, tuple) or len(held) < _LONG:
        return None
    pairs = stored_items(held) if type(held) is dict else list(enumerate(held))
    names, values = [name for name, _ in pairs], [value for _, value in pairs]
    # Exactly these types, of which `marshal` is known to write equal bytes for equal values alone.
    if not {*map(type, values), *map(type, names)}.issubset(PLAIN):
        return None
    # Before version 3 nothing in it depends on which equal objects are the same one.
    return _Row(marshal.dumps((names, values), 2), names, values)


def _places(held: Any) -> Iterator[tuple[Hashable, Any]]:
    if is_a(held, dict):
        items = [(compared(key), value) for key, value in stored_items(held)]
        yield from items
        # Where it is of use: in a picture they have none.
        yield ("order",), _Order(tuple(name for name, _ in items))
        yield from _attributes_of_container(held)
    elif is_a(held, (list, tuple, collections.deque)):
        yield from enumerate(entries(held))
        yield from _attributes_of_container(held)
    elif is_a(held, (set, frozenset)):
        yield from ((key, None) for key in map(compared, entries(held)))
        yield from _attributes_of_container(held)
    elif is_a(held, type):
        own = list(class_attributes(held).items())
        yield from ((name, value) for name, value in own if _is_set(value))
    elif is_a(held, types.FunctionType):
        cells = zip(held.__code__.co_freevars, held.__closure__ or (), strict=True)
        yield from (((name,), value_of_cell(cell)) for name, cell in cells)
        yield from stored_items(vars(held))
        yield ("code",), held.__code__
        defaults = (("defaults",), held.__defaults__), (("named",), held.__kwdefaults__)
        # Most have none, and there are many functions.
        yield from (one for one in defaults if one[1] is not None)
        table = held.__globals__
        read, written = names_used(held.__code__)
        for name in read - written - BUILTINS:
            if is_a(value := table.get(name), (*PLAIN, *_CONTAINERS, types.FunctionType)):
                yield ("global", name), value
    elif is_a(held, property):
        yield "fget", held.fget
    elif is_a(held, (staticmethod, classmethod)):
        yield "__func__", held.__func__
    elif is_a(held, types.MethodType):
        yield "__self__", held.__self__
    elif is_a(held, types.MappingProxyType):
        yield "mapping", behind_proxy(held)
    elif is_a(held, contextvars.ContextVar):
        try:
            yield "value", held.get()
        except LookupError:
            yield "value", None
    elif is_a(held, torch.optim.Optimizer):
        # Its state moves in every step, which no other code reads.
        yield "param_groups", (own_attributes(held) or {}).get("param_groups")
    elif is_a(held, torch.nn.Module):
        # Its numbers, tensors and parts are watched by other means.
        attributes = stored_items(own_attributes(held) or {})
        yield from (
            (name, value)
            for name, value in attributes
            if name not in OF_EVERY_MODULE and not is_a(value, (bool, int, float, str))
        )
    else:
        yield from slots_of(held)
        yield from stored_items(own_attributes(held) or {})


def _places_of_module(module: torch.nn.Module) -> Iterator[tuple[Hashable, Any]]:
    """Of one that stands in a container or an object: also what is watched of others elsewhere."""
    own = own_attributes(module) or {}
    yield from ((name, value) for name, value in stored_items(own) if name not in OF_EVERY_MODULE)
    yield "training", own.get("training")
    tables = {name: own.get(name) for name in ("_parameters", "_buffers", "_modules")}
    for name, table in {**tables, **hook_tables(module)}.items():
        # Those of scripts are no dicts.
        if isinstance(table, dict):
            yield from (((name, key), value) for key, value in stored_items(table))


def _attributes_of_container(held: Any) -> Iterator[tuple[Hashable, Any]]:
    """Of a subclass's, which may have some beside its items."""
    for name, value in stored_items(own_attributes(held) or {}):
        yield ("attribute", name), value


def _classes_of(held: Any) -> list[type]:
    """Those that an object finds attributes in which it has not itself."""
    plain = any(type(held) is kind for kind in _CONTAINERS)
    if plain or is_a(held, (types.FunctionType, types.MethodType)):
        return []
    kinds = bases_of(held if is_a(held, type) else type(held))
    # Of modules the code alone, that of libraries stays what it is.
    leaves_out = is_installed if is_a(held, torch.nn.Module) else is_of_framework
    return [kind for kind in kinds if not leaves_out(kind)]


def _is_set(value: Any) -> bool:
    """Whether it is what code sets on a class, a method in place of another for one."""
    kinds = (*PLAIN, *_CONTAINERS, torch.Tensor, types.FunctionType, *_AROUND_FUNCTIONS)
    return is_a(value, kinds)


def _leads_on(owner: Any, value: Any) -> bool:
    if is_a(value, (*_CONTAINERS, *LOOKED_INTO)):
        return True
    if is_a(value, torch.nn.Module):
        return True
    if is_a(value, (*PLAIN, torch.Tensor, type)):
        return False
    if is_a(value, _AROUND_FUNCTIONS):
        return True
    if is_a(value, types.FunctionType):
        # Of the many in libraries it is enough to know which they are.
        return not (is_of_framework(value) or is_installed(value))
    if is_a(value, types.MethodType):
        return not is_of_framework(value.__self__)
    has_attributes = own_attributes(value) is not None or any(slots_of(value))
    return has_attributes and not is_a(value, types.ModuleType) and not is_of_framework(value)
