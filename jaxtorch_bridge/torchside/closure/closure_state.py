"""What a torch function closes over and may change between calls.

A captured gradient graph holds the function as it was: a module's training flags, which
parameters it has, the Python numbers in closure cells and globals. `ClosureState.key()` tells
when any of these has changed, so that a new plan is made instead of using a stale graph.
"""

from __future__ import annotations

import abc
import collections
import contextlib
import functools
import threading
import types
from collections.abc import Callable, Hashable
from typing import Any

import torch

from ..._compat.torch.modules import (
    OF_EVERY_MODULE,
    hook_tables,
    hooks_of_all_modules,
    is_scripted,
    is_training,
    own_buffers,
    own_parameters,
)
from ..inspection.bytecode_names import globals_read, is_of_framework, names_used, plain_values_read
from ..inspection.careful_access import entries, is_a, own_attributes, present_attribute
from ..inspection.code_text import value_of_cell
from ..inspection.compared_values import PLAIN, compared, is_buffer
from ..inspection.held_places import LOOKED_INTO, leads_on
from ..inspection.held_values import HeldValues, Picture
from ..inspection.module_attributes import module_attributes_read
from ..inspection.reachable_objects import keys_of, modules_in, parts_of
from ..inspection.torch_alone import refers_to_torch_alone
from .locks import Locks, locks_of
from .snapshot import CONTAINERS, Snapshot

_SETTLED = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


class Secluded(abc.ABC):
    """A function with modules of its own, of which each call has one to itself."""

    __slots__ = ()

    @abc.abstractmethod
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run."""

    @abc.abstractmethod
    def owns(self, module: torch.nn.Module) -> bool:
        """Whether a module is one of them."""

    @abc.abstractmethod
    def around(self) -> Any:
        """What it runs besides its modules; may close over anything."""

    @abc.abstractmethod
    def structure(self) -> torch.nn.Module:
        """A module with the code of its modules."""


class ClosureState:
    """The changeable surroundings of one function.

    Values inside other objects (attributes, lists) are no part of the key: plain calls read them.
    What is derived eagerly, or called eagerly as a graph, is made anew when they change; a captured
    graph in a compiled program keeps those, like ``jax.jit``, as they were when it was traced.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        # What code only reads, and what the key is made of.
        self._cells: list[types.CellType] = []
        self._names: dict[int, str] = {}  # of these cells, for messages
        self._globals: list[tuple[dict[str, Any], str]] = []
        # What code writes to: no part of the key, but put back after a trial run.
        self._counters: list[types.CellType] = []
        self._counted: list[tuple[dict[str, Any], str]] = []
        self._caches: list[Any] = []
        self._holders: list[Any] = []
        # Objects with `__slots__` alone, and others that nothing is put back into.
        self._looked_into: list[Any] = []
        # Those that code refers to by name.
        self._classes: list[type] = []
        self._held = HeldValues()
        # What was held at some time, each under its number: a few, for what goes to and fro.
        self._numbered: collections.deque[tuple[int, Picture]] = collections.deque(maxlen=8)
        self._numbers = 0
        # By one thread again: what is let go of meanwhile may call anything.
        self._numbering = threading.RLock()
        self._roots: list[types.FunctionType] = []
        self._seen: set[int] = set()
        self.modules: list[torch.nn.Module] = []
        self._scripted = False
        self._locks: tuple[int, Locks] | None = None
        self._secluded = function if isinstance(function, Secluded) else None
        self.watch(function)
        if self._secluded is not None:
            self.watch(self._secluded.around())
            self._read_code(self._secluded.structure())

    def key(self) -> Hashable:
        """Equal as long as nothing that can be seen from here has changed. Cheap."""
        # Asked for in every call, and most functions close over nothing.
        hooks = hooks_of_all_modules()
        if not self.modules and not self._cells and not self._globals:
            return hooks and ((), (), hooks)
        flags = tuple(is_training(part) for module in self.modules for part in module.modules())
        values = [compared(value_of_cell(cell)) for cell in self._cells]
        values += [compared(names.get(name)) for names, name in self._globals]
        return flags, tuple(values), hooks

    def named_values(self) -> list[tuple[str, Hashable]]:
        """What its variables and globals are bound to, by their names, as `key` compares it."""
        found = [(self._names[id(cell)], compared(value_of_cell(cell))) for cell in self._cells]
        return found + [(name, compared(names.get(name))) for names, name in self._globals]

    def changed(self, before: Any, after: Any) -> list[str]:
        """The names of variables and globals that differ between two results of `key`."""
        if not before or not after:
            return []
        names = [name for name, _ in self.named_values()]
        pairs = zip(names, before[1], after[1], strict=False)
        return [name for name, was, now in pairs if was != now]

    def details(self) -> tuple[Hashable, ...]:
        """What takes longer to look at: the modules' tensors and their Python attributes.

        Another parameter is another identity; values that change in place do not show.
        """
        if not self.modules:
            return ()
        # Not while a call on another thread has given the modules other parameters.
        with self.locks:
            found: list[Hashable] = []
            for module in self.modules:
                # A graph holds the tensors that it uses, so that no later one takes their numbers.
                found += [id(tensor) for tensor in module.parameters()]
                found += [id(tensor) for tensor in module.buffers()]
                for part in module.modules():
                    found.append((type(part),))
                    # Hooks by their numbers, which are never given twice.
                    found += [(name, *table) for name, table in hook_tables(part).items() if table]
                    # 1 and True, 0.0 and -0.0 are equal, and not the same.
                    found += [
                        (name, type(value), value or repr(value))
                        for name, value in vars(part).items()
                        if is_a(value, (bool, int, float, str))
                    ]
            return tuple(found)

    @property
    def all_modules(self) -> list[torch.nn.Module]:
        """Those that it refers to, and the one whose code it runs."""
        return [*self.modules, *([self._secluded.structure()] if self._secluded else ())]

    def held(self) -> Picture:
        """What the objects and containers hold that it refers to."""
        holders, modules = self._looked_at(), parts_of(self.modules)
        if not holders and not modules:
            return {}
        # As in `details`.
        with self.locks if modules else contextlib.nullcontext():
            return self._held.picture(holders, modules)

    def holds_same(self, before: Picture) -> bool:
        """Whether that is what it was, but for what the function itself changes."""
        if not self._looked_at() and not self.modules:
            return True
        is_same = self._held.same(before, self.held())
        self._held.tell_of_the_rest()
        return is_same

    def held_number(self) -> int:
        """Another number whenever that has changed, and the same when it is as it was before."""
        now = self.held()
        if not now:
            return 0
        with self._numbering:
            self._held.tell_of_the_rest()
            for number, before in reversed(self._numbered):
                if self._held.same(before, now):
                    return number
            self._numbers += 1
            self._numbered.append((self._numbers, now))
            return self._numbers

    def _looked_at(self) -> list[Any]:
        values = [value_of_cell(cell) for cell in self._cells]
        values += [names.get(name) for names, name in self._globals]
        return [
            *self._holders,
            *self._looked_into,
            *self._classes,
            *self._roots,
            *filter(is_buffer, values),
        ]

    @property
    def locks(self) -> Locks:
        """The locks of all that it leads to, to read."""
        # `watch` may have found more since.
        if self._locks is None or self._locks[0] != len(self._seen):
            self._locks = (
                len(self._seen),
                locks_of(keys_of(self.parts(), self.holders), self.words()),
            )
        return self._locks[1]

    def parts(self) -> list[torch.nn.Module]:
        """The modules that it leads to, also in containers, and all their parts."""
        return parts_of([*self.modules, *modules_in(self.holders)])

    @property
    def holders(self) -> list[Any]:
        """Containers and objects with attributes that it refers to."""
        return self._holders

    @property
    def refers_to_torch_alone(self) -> bool:
        """Whether no tensor can be reached from it."""
        return self._roots == [self._function] and refers_to_torch_alone(self._function)

    @property
    def cannot_change(self) -> bool:
        """Whether it leads to nothing that somebody could change, so that no call need look."""
        if self._cells or self._globals or self.modules or self._holders or self._looked_into:
            return False
        if self._secluded is not None:
            return self._secluded.around() is None and not self._classes
        return self.refers_to_torch_alone

    @property
    def secluded(self) -> bool:
        """Whether it is a module that `from_module` took."""
        return self._secluded is not None

    def owns(self, module: torch.nn.Module) -> bool:
        """Whether a module is reached by one call at a time, so that nobody need care."""
        return self._secluded is not None and self._secluded.owns(module)

    def roots(self) -> list[Any]:
        """All that it leads to, to look further from."""
        held = [
            value
            for part in self.parts()
            for name, value in vars(part).items()
            if name not in OF_EVERY_MODULE
        ]
        return [*self._roots, *self._holders, *held, *map(type, self.parts()), *self._classes]

    def contents(self) -> list[Any]:
        """The values that it refers to, and what its modules and holders hold."""
        values = [value_of_cell(cell) for cell in (*self._cells, *self._counters)]
        values += [names.get(name) for names, name in (*self._globals, *self._counted)]
        return [*values, *self._holders, *map(vars, self.parts())]

    def words(self) -> str:
        """What it closes over that can be changed, for messages; empty if there is nothing."""
        found = [
            f"`{type(module).__name__}`" for module in modules_in([self.modules, self.holders])
        ]
        found += [f"a {type(holder).__name__}" for holder in self.holders]
        found += [f"`{name}`" for _, name in self._counted]
        found += ["a variable of the function around it"] if self._counters else []
        values = [value_of_cell(cell) for cell in self._cells]
        values += [names.get(name) for names, name in self._globals]
        found += ["a tensor"] if any(is_a(value, torch.Tensor) for value in values) else []
        return " and ".join(dict.fromkeys(found))

    @property
    def assigned_cells(self) -> list[types.CellType]:
        """Variables of enclosing functions that its code writes to."""
        return self._counters

    @property
    def assigned_names(self) -> list[tuple[dict[str, Any], str]]:
        """Globals that its code writes to."""
        return self._counted

    @property
    def scripted(self) -> bool:
        """Whether any of it is run by TorchScript."""
        return self._scripted or any(is_scripted(module) for module in self.modules)

    def tensors(self) -> list[torch.Tensor]:
        """Tensors that its variables and globals are bound to themselves."""
        values = [value_of_cell(cell) for cell in self._cells]
        values += [names.get(name) for names, name in self._globals]
        return [value for value in values if is_a(value, torch.Tensor)]

    def tensors_around(self) -> list[torch.Tensor]:
        """Those that it refers to, that its modules have, and that stand in what it refers to."""
        found: list[Any] = [*self.tensors()]
        for part in self.parts():
            found += [*own_parameters(part).values(), *own_buffers(part).values()]
        for holder in self._holders:
            held = holder if is_a(holder, CONTAINERS) else own_attributes(holder) or {}
            found += entries(held)
        return list({id(one): one for one in found if is_a(one, torch.Tensor)}.values())

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Those that it refers to."""
        values = [value_of_cell(cell) for cell in self._cells]
        values += [names.get(name) for names, name in self._globals]
        for holder in self._holders:
            values += entries(own_attributes(holder) or {})
        return [one for one in values if is_a(one, torch.optim.Optimizer)]

    def buffers(self) -> list[torch.Tensor]:
        """The modules' buffers."""
        return [buffer for module in self.modules for buffer in module.buffers()]

    def snapshot(self) -> Snapshot:
        """The function's surroundings as they are, to be put back after a trial run."""
        parts = [part for module in self.modules for part in module.modules()]
        cells = [*self._cells, *self._counters]
        names = [*self._globals, *self._counted]
        before = self.held()
        return Snapshot(
            [*parts, *self._holders],
            cells,
            names,
            self._caches,
            [*self._classes, *map(type, parts), *map(type, self._holders)],
            self.tensors_around(),
            lambda: self._held.note_changes(before, self.held()),
        )

    def watch(self, function: Any) -> None:
        """Take in a function, module or object, and what it leads to."""
        # No recursion: decorators may stand around each other as often as they like.
        waiting = [function]
        while waiting:
            value = waiting.pop()
            if id(value) not in self._seen:
                self._seen.add(id(value))
                if is_a(value, types.FunctionType):
                    self._roots.append(value)
                # In the order in which they are met.
                waiting += reversed(self._take_in(value))

    def _take_in(self, function: Any) -> list[Any]:
        """Note one of them; returns what it leads to."""
        is_module = is_a(function, torch.nn.Module)
        self._scripted |= not is_module and is_scripted(function)
        if is_a(function, functools.partial):
            return [function.func, *function.args, *function.keywords.values()]
        if is_module:
            self.modules.append(function)
            self._read_code(function)
        elif _is_cache(function):
            # An lru_cache: a real run must not find what an abstract one left in it.
            self._caches.append(function)
            return [present_attribute(function, "__wrapped__")]
        elif is_a(function, types.MethodType):
            return [function.__self__, function.__func__]
        elif is_a(function, types.FunctionType):
            return [*self._look_into(function), getattr(function, "__wrapped__", None)]
        elif is_a(function, (tuple, frozenset)):
            return [one for one in entries(function) if not is_a(one, PLAIN) and _leads_on(one)]
        elif is_a(function, LOOKED_INTO):
            self._looked_into.append(function)
        elif _is_holder(function):
            self._holders.append(function)
            return list(modules_in(function))
        elif is_a(function, type):
            self._classes.append(function)
        elif leads_on(function):
            self._looked_into.append(function)
        return []

    def _look_into(self, function: types.FunctionType) -> list[Any]:
        written = names_used(function.__code__)[1]
        found: list[Any] = []
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        for name, cell in cells:
            value = value_of_cell(cell)
            found.append(value)
            # A counter is put back after a trial run, but is no part of the key: it moves in every
            # call.
            if name in written:
                self._counters.append(cell)
            elif _may_change(value):
                self._cells.append(cell)
                self._names[id(cell)] = name
        names = function.__globals__
        self._counted += [(names, name) for name in sorted(written & set(names))]
        for name in sorted(globals_read(function)):
            value = names.get(name)
            found.append(value)
            if _may_change(value):
                # Also a name that is not bound yet: it will be when the function runs.
                self._globals.append((names, name))
        for table, name in module_attributes_read(function):
            value = table.get(name)
            found.append(value)
            if _may_change(value):
                self._globals.append((table, name))
        found += function.__defaults__ or ()
        found += (function.__kwdefaults__ or {}).values()
        return [value for value in found if _leads_on(value)]

    def _read_code(self, module: torch.nn.Module) -> None:
        """What the code of a module's parts reads by name, where that is a number or text."""
        cells, names = plain_values_read(module)
        for name, cell in cells:
            self._cells.append(cell)
            self._names[id(cell)] = name
        known = {(id(table), name) for table, name in self._globals}
        self._globals += [item for item in names if (id(item[0]), item[1]) not in known]


def _leads_on(value: Any) -> bool:
    """Whether to follow what code refers to: modules, containers and the user's own helpers."""
    own = is_a(value, (torch.nn.Module, *LOOKED_INTO)) or is_scripted(value)
    return own or not is_of_framework(value)


def _is_cache(function: Any) -> bool:
    return all(present_attribute(function, name) for name in ("cache_clear", "cache_info"))


def _is_holder(value: Any) -> bool:
    if is_a(value, CONTAINERS):
        return True
    return own_attributes(value) is not None and not is_a(value, _SETTLED)


def _may_change(value: Any) -> bool:
    # Modules are watched by their flags and tensors; containers are not followed.
    return not is_a(value, (*_SETTLED, torch.nn.Module, *CONTAINERS))
