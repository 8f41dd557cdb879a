"""Copies of a torch function over module structures of their own, with the same tensors.

A call that swaps a module's parameters swaps those of its replica, so calls on several threads do
not meet. The tensors are shared: what an optimizer writes into them, every replica sees.
"""

from __future__ import annotations

import collections
import copy
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from ..._compat import torch_compile
from ...errors import ConcurrencyError
from ..closure.bytecode_names import is_of_framework, names_used
from ..closure.closure_state import ClosureGuard, ClosureState
from ..closure.reachable_objects import parts_of

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_SETTLED = (*_PLAIN, types.ModuleType, types.BuiltinFunctionType, type, torch.Tensor)
_CONTAINERS = (list, tuple, set)
_GROWING = (list, set, collections.deque)


class Replicas:
    """As many replicas of a function as calls run at once.

    Args:
        make: Builds one.
        closure: What the function closes over. Once a module was switched to ``eval()`` or got
            another parameter, old replicas are dropped.
    """

    def __init__(self, make: Callable[[], Callable[..., Any]], closure: ClosureState) -> None:
        self._make = make
        self._closure = closure
        # One that is in use is not in here. `append` and `pop` need no lock.
        self._free: list[tuple[ClosureGuard, Callable[..., Any]]] = []

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Run on a replica that nobody else uses."""
        guard, run = self._take()
        try:
            return run(*tensors)
        finally:
            self._free.append((guard, run))

    def _take(self) -> tuple[ClosureGuard, Callable[..., Any]]:
        while True:
            try:
                guard, run = self._free.pop()
            except IndexError:
                # Nobody may change the modules while they are copied.
                with self._closure.locks:
                    return ClosureGuard(self._closure), self._make()
            if guard.holds:
                return guard, run


def replica_of(
    values: Sequence[Any], modules: Iterable[torch.nn.Module], others: Iterable[Any] = ()
) -> list[Any]:
    """Functions and other values with these modules, and all that leads to them, replaced.

    Args:
        values: What to copy: the function, and static arguments.
        modules: What must be replaced, with all parts.
        others: Containers and objects that are replaced too, though they lead to no module.

    Raises:
        ConcurrencyError: A module is run by TorchScript, cannot be copied, or cannot be found from
            ``values``.
    """
    copier = _Copier(others)
    try:
        copies = [copier.copy(value) for value in values]
    except RecursionError as error:
        raise ConcurrencyError("what the function refers to is nested too deeply") from error
    for part in parts_of(modules):
        if not copier.replaced(part):
            raise ConcurrencyError(
                f"the module `{type(part).__name__}` cannot be found from the function, so that it "
                "cannot be exchanged"
            )
    return copies


class _Overlay(dict[str, Any]):
    """Globals of which a few are other than in the module that they come from."""

    def __init__(self, below: dict[str, Any]) -> None:
        super().__init__()
        self._below = below
        # Where functions look for builtins, at the time when they are made.
        self["__builtins__"] = below.get("__builtins__", __builtins__)

    def __missing__(self, name: str) -> Any:
        return self._below[name]


class _Copier:
    """Copies what leads to modules, and these values; shares the rest."""

    def __init__(self, wanted: Iterable[Any]) -> None:
        self._wanted = {id(value) for value in wanted}
        self._copies: dict[int, Any] = {}
        # Originals stay alive, so that identities stay theirs.
        self._originals: list[Any] = []

    def replaced(self, value: Any) -> bool:
        """Whether there is a copy of it."""
        return self._copies.get(id(value), value) is not value

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
        if id(value) in self._wanted and isinstance(value, _GROWING):
            return self._settle(value, self._copy_items(value))
        if type(value) in _CONTAINERS:
            items = [self.copy(item) for item in value]
            return self._settle(value, value if _all_same(items, value) else type(value)(items))
        if isinstance(value, tuple) and hasattr(value, "_make"):
            items = [self.copy(item) for item in value]
            return self._settle(value, value if _all_same(items, value) else value._make(items))
        if isinstance(getattr(value, "__dict__", None), dict) and not is_of_framework(type(value)):
            return self._copy_object(value)
        return value

    def _settle(self, value: Any, made: Any) -> Any:
        return self._copies.setdefault(id(value), made)

    def _copy_module(self, module: torch.nn.Module) -> torch.nn.Module:
        if isinstance(module, torch.jit.ScriptModule):
            raise ConcurrencyError(f"`{type(module).__name__}` is run by TorchScript")
        if torch_compile.is_compiled(module):
            inside = self.copy(torch_compile.inside_of(module))
            recompiled = torch_compile.compiled_like(module, inside)
            self._settle(module, recompiled)
            return recompiled
        made: torch.nn.Module = self._empty(module)
        self._settle(module, made)
        # Containers are the module's own even where they hold no module: parameters are swapped
        # in them.
        vars(made).update(
            (name, self._own(value) if isinstance(value, (dict, list, set)) else self.copy(value))
            for name, value in vars(module).items()
        )
        compiled = vars(module).get(torch_compile.COMPILED_CALL)
        if compiled is not None:
            # It is bound to the module that it was made for.
            vars(made)[torch_compile.COMPILED_CALL] = torch_compile.compiled_call_like(
                compiled, made
            )
        return made

    def _own(self, container: Any) -> Any:
        if id(container) in self._copies:
            return self._copies[id(container)]
        self._originals.append(container)
        if isinstance(container, dict):
            return self._settle(container, self._copy_dict(container, always=True))
        return self._settle(container, self._copy_items(container))

    def _copy_items(self, container: Any) -> Any:
        made = _shallow(container)
        made.clear()
        add = made.update if isinstance(made, set) else made.extend
        add(self.copy(item) for item in container)
        return made

    def _copy_dict(self, value: dict[Any, Any], *, always: bool = False) -> Any:
        items = {key: self.copy(item) for key, item in value.items()}
        if not always and _all_same(items.values(), value.values()):
            return value
        # Of its own class; `dict.copy` would make a plain one.
        made = _shallow(value)
        made.update(items)
        return made

    def _copy_object(self, value: Any) -> Any:
        # Taken to be itself where it leads back to itself.
        self._settle(value, value)
        items = {name: self.copy(item) for name, item in vars(value).items()}
        wanted = id(value) in self._wanted
        if not wanted and _all_same(items.values(), vars(value).values()):
            return value
        made = _shallow(value) if wanted else self._empty(value)
        vars(made).update(items)
        self._copies[id(value)] = made
        return made

    def _copy_partial(self, value: functools.partial[Any]) -> Any:
        parts = [value.func, *value.args, *value.keywords.values()]
        copies = [self.copy(part) for part in parts]
        if _all_same(copies, parts):
            return self._settle(value, value)
        count = 1 + len(value.args)
        keywords = dict(zip(value.keywords, copies[count:], strict=True))
        return self._settle(value, functools.partial(copies[0], *copies[1:count], **keywords))

    def _copy_function(self, function: types.FunctionType) -> Any:
        overlay = _Overlay(function.__globals__)
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        made = types.FunctionType(
            function.__code__, overlay, function.__name__, closure=cells or None
        )
        # Known before its parts are copied: it may call itself.
        self._settle(function, made)
        parts = _Parts(function, self.copy)
        made.__defaults__ = parts.defaults
        made.__kwdefaults__ = parts.keyword_defaults
        vars(made).update(parts.attributes)
        for own, value in zip(cells, parts.cells, strict=True):
            if value is not _UNBOUND:
                own.cell_contents = value
        overlay.update(parts.globals)
        if not parts.changed:
            self._copies[id(function)] = function
            return function
        return made

    @staticmethod
    def _empty(value: Any) -> Any:
        try:
            return object.__new__(type(value))
        except TypeError as error:
            raise ConcurrencyError(
                f"`{type(value).__name__}` cannot be made without arguments ({error})"
            ) from error


def _shallow(value: Any) -> Any:
    try:
        return copy.copy(value)
    except Exception as error:
        raise ConcurrencyError(f"`{type(value).__name__}` cannot be copied ({error})") from error


_UNBOUND = object()


class _Parts:
    """What a function leads to, copied, and whether any of it is another thing than before."""

    def __init__(self, function: types.FunctionType, copy: Callable[[Any], Any]) -> None:
        self.changed = False

        def copied(value: Any) -> Any:
            found = copy(value)
            self.changed |= found is not value
            return found

        defaults, named = function.__defaults__, function.__kwdefaults__
        self.defaults = None if defaults is None else tuple(copied(value) for value in defaults)
        self.keyword_defaults = named and {name: copied(value) for name, value in named.items()}
        self.attributes = {name: copied(value) for name, value in vars(function).items()}
        self.cells = [copied(_content(cell)) for cell in function.__closure__ or ()]
        self.globals: dict[str, Any] = {}
        table = function.__globals__
        for name in names_used(function.__code__)[0] & table.keys():
            value = copied(table[name])
            if value is not table[name]:
                self.globals[name] = value


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _UNBOUND


def _all_same(one: Iterable[Any], other: Iterable[Any]) -> bool:
    return all(a is b for a, b in zip(one, other, strict=True))
