"""Copies of a module's structure, with the same tensors."""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
import inspect
import types
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..._compat.torch import compiled_code
from ..closure.closure_state import ClosureState
from ..inspection.bytecode_names import is_of_framework
from ..inspection.careful_access import own_attributes, stored_items

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_SETTLED = (*_PLAIN, types.ModuleType, types.BuiltinFunctionType, type, torch.Tensor)
_CONTAINERS = (tuple, frozenset)
_GROWING = (list, set, collections.deque)


class NotCopiedError(RuntimeError):
    """A module cannot be copied; the message says why."""


def structure_of(module: torch.nn.Module, others: Iterable[Any] = ()) -> torch.nn.Module:
    """A copy of a module, with all its parts, and of what leads to them: containers, functions.

    Args:
        module: What to copy.
        others: Containers and objects that are copied too, though they lead to no module.

    Raises:
        NotCopiedError: A part is run by TorchScript, cannot be copied, or is used by a function
            that finds it as a global.
    """
    try:
        made: torch.nn.Module = _Copier(others).copy(module)
    except RecursionError as error:
        raise NotCopiedError("what it refers to is nested too deeply") from error
    return made


class _Copier:
    """Copies what leads to modules, and these values; shares the rest."""

    def __init__(self, wanted: Iterable[Any]) -> None:
        # By identity: containers have no hash, and equal ones may be two.
        self._wanted = {id(value) for value in wanted}
        self._copies: dict[int, Any] = {}
        # Originals stay alive, so that identities stay theirs.
        self._originals: list[Any] = []

    def copy(self, value: Any) -> Any:
        """The value, or a copy of it where it leads to a module."""
        if isinstance(value, _SETTLED):
            return value
        if id(value) in self._copies:
            return self._copies[id(value)]
        self._originals.append(value)
        if isinstance(value, torch.nn.Module):
            return self._copy_module(value)
        if inspect.isfunction(value):
            return value if is_of_framework(value) else self._copy_function(value)
        if inspect.ismethod(value):
            made = types.MethodType(self.copy(value.__func__), self.copy(value.__self__))
            same = made.__self__ is value.__self__ and made.__func__ is value.__func__
            return self._settle(value, value if same else made)
        if isinstance(value, functools.partial):
            return self._copy_partial(value)
        if isinstance(value, dict):
            return self._settle(value, self._copy_dict(value, always=id(value) in self._wanted))
        if isinstance(value, _GROWING):
            return self._settle(value, self._copy_items(value, always=id(value) in self._wanted))
        if isinstance(value, types.MappingProxyType):
            inside = {key: self.copy(item) for key, item in value.items()}
            same = _all_same(inside.values(), value.values())
            return self._settle(value, value if same else types.MappingProxyType(inside))
        if type(value) in _CONTAINERS:
            items = [self.copy(item) for item in value]
            return self._settle(value, value if _all_same(items, value) else type(value)(items))
        # A named tuple takes its items one by one.
        if isinstance(value, tuple) and hasattr(value, "_make"):
            items = [self.copy(item) for item in value]
            return self._settle(value, value if _all_same(items, value) else value._make(items))
        if not is_of_framework(type(value)) and has_attributes(value):
            return self._copy_object(value)
        return value

    def _settle(self, value: Any, made: Any) -> Any:
        return self._copies.setdefault(id(value), made)

    def _copy_module(self, module: torch.nn.Module) -> torch.nn.Module:
        if isinstance(module, torch.jit.ScriptModule):
            raise NotCopiedError(f"`{type(module).__name__}` is run by TorchScript")
        if compiled_code.is_compiled(module):
            inside = self.copy(compiled_code.inside_of(module))
            recompiled = compiled_code.compiled_like(module, inside)
            self._settle(module, recompiled)
            return recompiled
        made: torch.nn.Module = object_like(module)
        # Before its parts are copied: they may lead back to it.
        self._settle(module, made)
        # Containers are the module's own even where they hold no module: parameters are swapped
        # in them.
        vars(made).update(
            (name, self._own(value) if isinstance(value, (dict, list, set)) else self.copy(value))
            for name, value in vars(module).items()
        )
        compiled = vars(module).get(compiled_code.COMPILED_CALL)
        if compiled is not None:
            # It is bound to the module that it was made for.
            vars(made)[compiled_code.COMPILED_CALL] = compiled_code.compiled_call_like(
                compiled, made
            )
        return made

    def _own(self, container: Any) -> Any:
        if id(container) in self._copies:
            return self._copies[id(container)]
        self._originals.append(container)
        if isinstance(container, dict):
            return self._settle(container, self._copy_dict(container, always=True))
        return self._settle(container, self._copy_items(container, always=True))

    def _copy_items(self, container: Any, *, always: bool = False) -> Any:
        before = list(container)
        items = [self.copy(item) for item in before]
        attributes = self._copied_attributes(container)
        if not always and not attributes and _all_same(items, before):
            return container
        made = _shallow(container)
        # Shallow copies keep the class and what it needs (`maxlen` of a deque), but hold the
        # originals.
        made.clear()
        add = made.update if isinstance(made, set) else made.extend
        add(items)
        set_attributes(made, attributes)
        return made

    def _copied_attributes(self, value: Any) -> dict[str, Any]:
        """Those of an object that lead to a module, as copies."""
        before = attributes_of(value)
        items = {name: self.copy(item) for name, item in before.items()}
        return {name: item for name, item in items.items() if item is not before[name]}

    def _copy_dict(self, value: dict[Any, Any], *, always: bool = False) -> Any:
        stored = stored_items(value)
        items = {key: self.copy(item) for key, item in stored}
        attributes = self._copied_attributes(value)
        same = _all_same(items.values(), (item for _, item in stored)) and not attributes
        if same and not always:
            return value
        # Of its own class; `dict.copy` would make a plain one.
        made = _shallow(value)
        made.update(items)
        set_attributes(made, attributes)
        return made

    def _copy_object(self, value: Any) -> Any:
        # Taken to be itself where it leads back to itself.
        self._settle(value, value)
        copied = self._copied_attributes(value)
        wanted = id(value) in self._wanted
        if not wanted and not copied:
            return value
        made = _shallow(value) if wanted else object_like(value)
        set_attributes(made, {**attributes_of(value), **copied})
        self._copies[id(value)] = made
        return made

    def _copy_partial(self, value: functools.partial[Any]) -> Any:
        parts = (value.func, value.args, value.keywords)
        copies = [self.copy(part) for part in parts]
        if _all_same(copies, parts):
            return self._settle(value, value)
        function, arguments, keywords = copies
        return self._settle(value, functools.partial(function, *arguments, **keywords))

    def _copy_function(self, function: types.FunctionType) -> Any:
        cells = function.__closure__ or ()
        own = tuple(types.CellType() for _ in cells)
        made = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, closure=own or None
        )
        # As long as its cells are empty, it leads to what it finds as globals and nothing else.
        globally = ClosureState(made)
        if globally.parts():
            raise NotCopiedError(
                f"it keeps the function `{function.__name__}`, which finds {globally.words()} as a "
                "global, and a copy of it would find the same. Let that be an argument, or a "
                "variable of the function around it"
            )
        # Known before its parts are copied: it may call itself.
        self._settle(function, made)
        contents = [_content(cell) for cell in cells]
        parts = [function.__defaults__, function.__kwdefaults__, vars(function), *contents]
        copies = [self.copy(part) for part in parts]
        if _all_same(copies, parts):
            self._copies[id(function)] = function
            return function
        made.__defaults__, made.__kwdefaults__, attributes, *contents = copies
        vars(made).update(attributes)
        for cell, value in zip(own, contents, strict=True):
            if value is not _UNBOUND:
                cell.cell_contents = value
        return made


def has_attributes(value: Any) -> bool:
    """Whether a value is an object with attributes of its own, in a dict or in slots."""
    return own_attributes(value) is not None or bool(_slots_of(type(value)))


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes that an object has itself."""
    found = dict(own_attributes(value) or {})
    for name, slot in _slots_of(type(value)).items():
        with contextlib.suppress(AttributeError):  # not set
            found[name] = slot.__get__(value)
    return found


def set_attributes(value: Any, attributes: Mapping[str, Any]) -> None:
    """Set them, past whatever the class does when one is set."""
    slots = _slots_of(type(value))
    for name, item in attributes.items():
        if name in slots:
            slots[name].__set__(value, item)
        else:
            vars(value)[name] = item


def object_like(value: Any) -> Any:
    """An object of the same class, without attributes or with the same ones."""
    try:
        # Not by calling the class, whose `__init__` would make tensors.
        return object.__new__(type(value))
    except TypeError:  # a class of Python's own below it has something besides
        return _shallow(value)


def _slots_of(kind: type) -> dict[str, types.MemberDescriptorType]:
    return {
        name: one
        for part in kind.__mro__
        if "__slots__" in vars(part)
        for name, one in vars(part).items()
        if isinstance(one, types.MemberDescriptorType)
    }


def _shallow(value: Any) -> Any:
    try:
        return copy.copy(value)
    except Exception as error:
        raise NotCopiedError(f"`{type(value).__name__}` cannot be copied ({error})") from error


_UNBOUND = object()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _UNBOUND


def _all_same(one: Iterable[Any], other: Iterable[Any]) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))
