"""What decides what a function does, as text that is the same in every process.

Its code, the constants it closes over and reads, the functions and classes it leads to. Parameters
and buffers of modules count by shape alone: training changes them, and no two processes need have
the same. Nothing here is a memory address or follows the hash seed.
"""

from __future__ import annotations

import array
import collections
import copyreg
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import operator
import pathlib
import re
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ..._compat.torch.modules import hook_tables, is_scripted
from ..inspection.array_digest import UNSEEN, content_of
from ..inspection.careful_access import (
    NOT_OF_THE_SOURCE,
    attribute,
    behind_proxy,
    entries,
    is_a,
    own_attributes,
    present_attribute,
    stored_items,
)
from ..inspection.code_text import UNBOUND, assigned_cells, code_lines, value_of_cell, values_read
from ..inspection.defining_package import (
    is_installed,
    module_of,
    own_packages,
    package_of,
    version_around,
)

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range)
_TORCH_VALUES = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_OPEN = (types.SimpleNamespace,)
_NUMBERS_AND_TEXTS = (bool, int, float, complex, str, bytes)
# Values of Python's own library whose attributes say nothing, or not all.
_MADE_OF = (
    *(fractions.Fraction, decimal.Decimal, uuid.UUID, pathlib.PurePath),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo),
    *(slice, bytearray, array.array, re.Pattern),
    *(operator.itemgetter, operator.attrgetter, operator.methodcaller),
)
# More than any function has; keeps a surprise from taking for ever.
_MOST_LINES = 200_000


def behaviour_of(*values: Any, state: Iterable[torch.Tensor] = ()) -> tuple[list[str], bool]:
    """Everything that decides what the values do, and whether they have state beyond that.

    Args:
        values: Functions, modules, static values.
        state: Tensors whose contents do not count, since the function writes to them.
    """
    walk = _Walk({id(tensor) for tensor in state}, own_packages(values))
    for value in values:
        walk.add(value)
    return walk.lines, walk.stateful


class _Walk:
    """Describes values and what they lead to, depth first.

    Without recursion: linked lists and chains of wrappers may be as long as they like. What has
    parts is an iterator of those, which says its own lines between them.
    """

    def __init__(self, state: set[int], own: frozenset[str]) -> None:
        self._own = own
        self.lines: list[str] = []
        self.stateful = False
        self._state = state
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no id is used twice

    def add(self, value: Any) -> None:
        """Describe one value and all it leads to."""
        unfinished: list[Iterator[Any]] = [iter((value,))]
        while unfinished:
            if len(self.lines) > _MOST_LINES:
                self._unreadable("more than can be looked at")
                return
            try:
                parts = self._look_at(next(unfinished[-1]))
            except StopIteration:
                unfinished.pop()
            except Exception as error:
                # Looking at an object may run its code, which is no part of the call. The iterator
                # that this came from has ended by it.
                self._unreadable(type(error).__name__)
            else:
                if parts is not None:
                    unfinished.append(parts)

    def _look_at(self, value: Any) -> Iterator[Any] | None:
        """Say all there is of a plain value; of others what they are made of."""
        # Not subclasses: there is more to a member of an IntEnum than its number.
        if type(value) in _PLAIN:
            self._say(f"{type(value).__name__} {value!r}")
        elif value is UNBOUND:
            self._say("...")
        elif type(value) is tuple:
            # Not by identity: whether two equal constants are one object is up to the compiler.
            return self._all("tuple", value)
        elif is_a(value, (frozenset, set)):
            return self._set(value)
        elif is_a(value, _TORCH_VALUES):
            self._say(f"{type(value).__name__} {value}")
        elif id(value) in self._seen:
            # Cycles, and helpers that call each other, end here.
            self._say(f"number {self._seen[id(value)]} again")
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
            return self._compound(value)
        return None

    def _is_foreign(self, thing: Any) -> bool:
        return package_of(thing) not in self._own and is_installed(thing)

    def _say(self, line: str) -> None:
        self.lines.append(line)

    def _unreadable(self, why: str) -> None:
        self._say(f"unreadable: {why}")
        self.stateful = True  # for all that is known

    def _all(self, kind: str, values: Iterable[Any]) -> Iterator[Any]:
        items = list(values)
        self._say(f"{kind} of {len(items)}")
        yield from items

    def _set(self, values: Iterable[Any]) -> Iterator[Any]:
        # By their names: a set's own order follows the hash seed.
        members = entries(values)
        named = {_set_order(value): value for value in members}
        if len(named) < len(members):
            self._unreadable(f"{type(values).__name__} of {len(members)}")
        else:
            yield from self._all(type(values).__name__, [named[name] for name in sorted(named)])

    def _named(self, kind: str, items: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
        pairs = list(items)
        self._say(f"{kind} of {len(pairs)}")
        for name, value in pairs:
            yield name
            yield value

    def _compound(self, value: Any) -> Iterator[Any]:
        if is_a(value, torch.Tensor):
            self._tensor(value)
        elif is_a(value, (np.ndarray, np.generic)):
            if value.dtype.hasobject:
                yield from self._all(f"array {value.shape}", np.asarray(value).ravel().tolist())
            else:
                self._say(f"array {content_of(np.asarray(value))}")
        elif is_a(value, _MADE_OF):
            # As pickle and copy describe it: a class or function, and what it is given.
            reduce = copyreg.dispatch_table.get(type(value))
            yield from self._all("made of", (reduce(value) if reduce else _reduced(value))[:3])
        elif is_a(value, functools.partial):
            yield from self._all("partial", (value.func, *value.args))
            yield from self._named("keywords", value.keywords.items())
        elif is_a(value, types.MethodType):
            yield from self._all("method", (value.__func__, value.__self__))
        elif is_a(value, types.FunctionType):
            yield from self._function(value)
        elif is_a(value, type):
            yield from self._class(value)
        elif is_a(value, torch.nn.Module):
            yield from self._module(value)
        elif is_a(value, enum.Enum):
            yield from self._all(f"member {value.name}", (type(value), value.value))
        elif is_a(value, (staticmethod, classmethod)):
            yield from self._all(type(value).__name__, (value.__func__,))
        elif is_a(value, property):
            yield from self._all("property", (value.fget, value.fset, value.fdel))
        elif is_a(value, functools.cached_property):
            yield from self._all("cached property", (value.func,))
        else:
            yield from self._object(value)

    def _tensor(self, tensor: torch.Tensor) -> None:
        tensor_words = f"tensor {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}"
        # Training changes it, and no two processes need have the same.
        is_state = tensor.requires_grad or id(tensor) in self._state
        content = "state" if is_state else content_of(tensor)
        self.stateful |= content in ("state", UNSEEN)
        self._say(f"{tensor_words} {content}")

    def _function(self, function: types.FunctionType) -> Iterator[Any]:
        self._say(f"function {function.__module__} {_own_name(function)}")
        self.lines.extend(code_lines(function.__code__))
        yield from self._all("defaults", function.__defaults__ or ())
        yield from self._named("defaults by name", sorted((function.__kwdefaults__ or {}).items()))
        # A counter is no constant.
        written = assigned_cells(function.__code__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        closed = [(name, value_of_cell(cell)) for name, cell in cells if name not in written]
        yield from self._named("closure", closed)
        yield from self._named("attributes", sorted(vars(function).items()))
        # The version stands for all that a library's code leads to, which may be very much.
        if self._is_foreign(function):
            self._say(version_around(function))
        else:
            yield from self._named("reads", values_read(function))

    def _class(self, cls: type) -> Iterator[Any]:
        self._say(f"class {cls.__module__} {_own_name(cls)}")
        for part in cls.__mro__[1:]:
            self._say(f"base {part.__module__} {_own_name(part)}")
        for part in cls.__mro__:
            if self._is_foreign(part):
                self._say(version_around(part))
            else:
                yield from self._named(f"body of {_own_name(part)}", _body(part))

    def _module(self, module: torch.nn.Module) -> Iterator[Any]:
        yield type(module)
        own = dict(vars(module))
        for name, parameter in own.pop("_parameters", {}).items():
            self._say(f"parameter {name} {_shape_of(parameter)}")
            self.stateful |= parameter is not None
        for name, buffer in own.pop("_buffers", {}).items():
            self._say(f"buffer {name} {_shape_of(buffer)}")
            self.stateful |= buffer is not None
        children = own.pop("_modules", {})
        yield from self._named("parts", children.items())
        for name, hooks in sorted(hook_tables(module).items()):
            del own[name]
            # Their keys are numbers that torch counts up in each process.
            yield from self._all(name, hooks.values())
        rest = {name: value for name, value in own.items() if not _is_bookkeeping(name)}
        yield from self._named("attributes", sorted(rest.items()))
        if is_scripted(module):
            self._say(f"script {attribute(module, 'code', '')}")

    def _object(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        wrapped = present_attribute(value, "__wrapped__")
        if module_of(kind).partition(".")[0] == "jaxtorch_bridge":
            # A callable of ours stands for its torch function; plans and caches for nothing.
            yield from self._all("callable", (getattr(value, "torch", None),))
        elif is_a(value, dict):
            yield kind
            yield present_attribute(value, "default_factory")
            yield from self._named("mapping", stored_items(value))
        elif is_a(value, types.MappingProxyType):
            yield from self._all("proxy", (behind_proxy(value),))
        elif is_a(value, (list, tuple, collections.deque)):
            yield kind
            yield from self._all("sequence", entries(value))
        elif callable(wrapped):
            # `functools.lru_cache` and the like; what it keeps counts for nothing.
            yield from self._all("wrapper", (wrapped,))
        elif is_a(value, types.ModuleType) or inspect.isbuiltin(value):
            self._say(f"{kind.__name__} {attribute(value, '__module__', '')} {value.__name__}")
        elif self._is_foreign(kind):
            self._say(f"object {module_of(kind)} {kind.__qualname__}")
            # Another live object of the class may do something else.
            self.stateful = True  # for all that is known
            yield from self._named("attributes", _plain_attributes(value))
        else:
            yield kind
            # Of subclasses of numbers and texts, what they are.
            plain = next((one for one in _NUMBERS_AND_TEXTS if is_a(value, one)), None)
            if plain is not None:
                self._say(f"{plain.__name__} {plain.__repr__(value)}")
            yield from self._named("attributes", sorted(_attributes(value).items()))


def _reduced(value: Any) -> tuple[Any, ...]:
    found = value.__reduce_ex__(2)
    return found if isinstance(found, tuple) else (found,)


def _set_order(value: Any) -> str:
    """A name by which to order the members of a set, the same in every process."""
    if type(value) in _PLAIN or is_a(value, _TORCH_VALUES):
        return f"{type(value).__name__} {value!r}"
    if type(value) in (tuple, frozenset):
        parts = [_set_order(item) for item in value]
        return repr(parts if type(value) is tuple else sorted(parts))
    if is_a(value, enum.Enum):
        return f"{type(value).__qualname__} {value.name}"
    named = value if is_a(value, (type, types.FunctionType)) else type(value)
    return f"{module_of(named)} {named.__qualname__}"


def _own_name(thing: Any) -> str:
    return str(thing.__qualname__).rpartition("<locals>.")[2]


def _body(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        if name in NOT_OF_THE_SOURCE or name.startswith("__pydantic"):
            continue
        # What C gives to a class has no state of its own.
        is_slot = inspect.ismemberdescriptor(value) or inspect.isgetsetdescriptor(value)
        yield name, name if is_slot else value


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(own_attributes(value) or {})
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return {name: one for name, one in found.items() if not _is_bookkeeping(name)}


def _plain_attributes(value: Any) -> list[tuple[str, Any]]:
    """What a library's object says of itself; it may lead anywhere, so it is not followed."""
    found = own_attributes(value)
    if found is None:
        return []
    # What a table holds stands in some attribute; it is not asked for it, as it may be read slowly.
    if is_a(value, (*_OPEN, Mapping)) or type(value).__name__ == "Namespace":
        return sorted(found.items())
    return sorted((name, one) for name, one in found.items() if type(one) in _PLAIN)


def _is_bookkeeping(name: str) -> bool:
    # What `Module.compile` made.
    return name == "_compiled_call_impl"


def _shape_of(tensor: torch.Tensor | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
