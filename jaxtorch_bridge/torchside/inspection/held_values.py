"""What the objects and containers hold that a function refers to, as a picture to compare.

A captured graph has these values as constants, where the function's own calls read them anew.
"""

from __future__ import annotations

import marshal
import types
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...errors import BridgeWarning
from .careful_access import is_a, own_attributes, stored_items
from .compared_values import PLAIN, Same, buffer_content, compared, is_buffer, is_c_data
from .deep_contents import leads_to_fakes
from .held_places import (
    AROUND_FUNCTIONS,
    WEAK,
    Order,
    classes_of,
    leads_on,
    places_of,
    places_of_module,
    target_of,
)
from .hidden_sources import hidden_in, hidden_in_code, reads_outside

# Looking at one takes some 3 us. Who holds more than that holds data.
_MOST = 10_000
# Containers of so many numbers and texts are compared as a whole, some hundred times as fast.
_LONG = 64
_PER_PLACE = 100
# In place of a value that was not there.
_NOTHING = ("nothing",)

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


class HeldValues:
    """Pictures of what is held, without what the function itself changes when it runs."""

    def __init__(self) -> None:
        # A count of calls, or a cache: with it every run would be another one's. What runs begin
        # only, and leave from then on, is known by its values, before and after; None: it moves on.
        self._moved: dict[Place, set[Hashable] | None] = {}
        # The kind of object in which the last picture ends, if that is not all.
        self._left_out = ""
        self._told = False
        # What in it cannot be looked at, in words.
        self._hidden = ""
        self._told_of_hidden = False
        self._code: tuple[Any, Any, str] | None = None

    def picture(self, holders: Sequence[Any], modules: Sequence[torch.nn.Module] = ()) -> Picture:
        """What can be reached from some objects and containers.

        Args:
            holders: These.
            modules: Whose numbers, tensors, hooks and parts are watched by other means.
        """
        walk = _Walk(frozenset(map(id, modules)), frozenset(map(id, holders)))
        walk.look_at([*holders, *modules])
        self._left_out = walk.left_out
        self._hidden = walk.hidden or self._hidden_in_code(walk)
        return walk.found

    def _hidden_in_code(self, walk: _Walk) -> str:
        seen = tuple(map(frozenset, (walk.running, walk.methods)))
        # Asked for again and again, of the same functions mostly, which stay alive meanwhile.
        if self._code is None or self._code[0] != seen:
            functions = *walk.running.values(), *walk.methods.values()
            words = hidden_in_code(walk.running.values(), walk.methods.values())
            self._code = seen, functions, words
        return self._code[2]

    def note_changes(self, before: Picture, after: Picture) -> None:
        """What a run of the function has changed is no sign of anything."""
        known = {owner for owner, _ in before}
        changed = {
            (owner, name)
            for owner, name in self._changed(before, after)
            # What an evaluation has made is let go of; here it would be kept for ever.
            if owner in known or not leads_to_fakes(owner.held)
        }
        for place in changed:
            values = {before.get(place, _NOTHING), after.get(place, _NOTHING)}
            seen = self._moved.get(place, values)
            # From another value it moves as well.
            goes_on = seen is None or seen != values or len(values) < 2
            self._moved[place] = None if goes_on or any(map(_is_big, values)) else values
        for place, seen in list(self._moved.items()):
            stays = place not in changed and place in before and before[place] == after.get(place)
            if seen is not None and stays and before[place] not in seen:
                del self._moved[place]

    def same(self, before: Picture, after: Picture) -> bool:
        """Whether nothing has changed but what the function itself changes."""
        if before == after:
            return True
        return all(
            self._moves_itself(place, before, after) for place in self._changed(before, after)
        )

    def _moves_itself(self, place: Place, before: Picture, after: Picture) -> bool:
        if place in self._moved:
            seen = self._moved[place]
            values = {before.get(place, _NOTHING), after.get(place, _NOTHING)}
            return seen is None or values <= seen
        # Of what it adds to or takes from, not all the rest.
        return (place[0], None) in self._moved and (place in before) != (place in after)

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
        if self._hidden and not self._told_of_hidden:
            self._told_of_hidden = True
            warnings.warn(
                f"a torch function refers to {self._hidden}, which cannot be looked at. Eager "
                "second derivatives and batches keep what it gave when they were first made, "
                "where plain calls and first gradients ask it anew. Pass what changes as an "
                "argument.",
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


class _Walk:
    """One picture in the making.

    Args:
        watched: The numbers of modules that are watched by other means.
        roots: The numbers of what it starts from.
        behind: All that weak references have led to so far, by its number, and kept alive for the
            length of the walk: None in one that starts from something else.
    """

    def __init__(
        self,
        watched: frozenset[int],
        roots: frozenset[int],
        behind: dict[int, Any] | None = None,
    ) -> None:
        self._watched, self._roots = watched, roots
        self._behind: dict[int, Any] = {} if behind is None else behind
        self._is_behind = behind is not None
        self._room = _MOST
        self.found: dict[Place, Hashable] = {}
        self.left_out = ""
        self.hidden = ""
        # Functions by their numbers, those that stand in classes and whole modules apart.
        self.running: dict[int, types.FunctionType] = {}
        self.methods: dict[int, types.FunctionType] = {}
        # By their numbers, what else stands there.
        self._named = set[int]()

    def look_at(self, values: Sequence[Any]) -> None:
        """Take in what can be reached from some values."""
        waiting, seen = [*values], set[int]()
        while waiting:
            held = waiting.pop()
            if id(held) in seen:
                continue
            if self._room <= len(self.found):
                self.left_out = type(held).__name__
                break
            seen.add(id(held))
            if self._is_behind:
                # Once, or trees that refer to their parents would be walked from each node.
                if id(held) in self._behind:
                    continue
                self._behind[id(held)] = held
            waiting += self._note(held)

    def _note(self, held: Any) -> list[Any]:
        """Take in one of them; returns what it leads to."""
        row = _row(held)
        if row is not None:
            self.found[Same(held), None] = row
            self._room -= len(row.values) // _PER_PLACE
            return []
        owner, count, found = Same(held), 0, list[Any]()
        self.hidden = self.hidden or hidden_in(held)
        if id(held) in self._roots and is_a(held, types.FunctionType):
            self.running[id(held)] = held
        if is_buffer(held):
            self.found[owner, ("content",)] = buffer_content(held)
            if not (is_c_data(held) or own_attributes(held)):
                return []
        if is_a(held, WEAK):
            self.found[owner, ("target",)] = self._of_target(target_of(held))
            return []
        places = places_of(held)
        if is_a(held, torch.nn.Module) and id(held) not in self._watched:
            places = places_of_module(held)
        # What stands in a class or a whole module runs if other code has its name.
        is_named = (
            id(held) in self._named
            or (id(held) in self.methods and id(held) not in self.running)
            or is_a(held, (type, types.ModuleType, *AROUND_FUNCTIONS))
        )
        for name, value in places:
            count += 1
            if is_a(value, Order):
                self.found[owner, name] = value
                continue
            self.found[owner, name] = compared(value)
            if not is_a(held, types.FunctionType) and not is_named:
                self.hidden = self.hidden or reads_outside(value)
            if is_buffer(value) or leads_on(value):
                found.append(value)
                if is_a(value, types.FunctionType):
                    (self.methods if is_named else self.running)[id(value)] = value
                elif is_named:
                    self._named.add(id(value))
        self.found[owner, None] = count
        return found + classes_of(held)

    def _of_target(self, target: Any) -> Hashable:
        """What a weak reference leads to, in numbers and texts alone, which keep nothing alive."""
        if target is None or id(target) in self._behind:
            return None
        walk = _Walk(self._watched, frozenset(), self._behind)
        walk._room = self._room - len(self.found)
        walk.look_at([target])
        self._room -= len(walk.found)
        self.left_out, self.hidden = self.left_out or walk.left_out, self.hidden or walk.hidden
        self.running |= walk.running
        self.methods |= walk.methods
        return tuple((_by_number(place), _by_number(value)) for place, value in walk.found.items())


def _is_big(value: Hashable) -> bool:
    """Whether a value is not to be kept: data, or what an evaluation has made."""
    if isinstance(value, Same):
        held = value.held
        return is_a(held, torch.Tensor) or is_buffer(held) or leads_to_fakes(held)
    return isinstance(value, _Row)


def _by_number(value: Hashable) -> Hashable:
    if isinstance(value, Same):
        return "object", id(value.held)
    if isinstance(value, _Row):
        return value.content
    if isinstance(value, Order):
        return tuple(map(_by_number, value.names))
    return tuple(map(_by_number, value)) if isinstance(value, tuple) else value


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
