"""How a function puts its results together, read off where it cannot be evaluated.

A contract gives the arrays of a result by name; a dict, a tuple or an object may hold them.
Annotations say which, and mostly so do the ``return`` statements. What is read here is what calls
are planned with; what a run returns is compared with that, as with any other plan.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import inspect
import itertools
import linecache
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...spec.array_tree import Node

# Stands for what is no container that can be read off: an array, or anything else.
_OPEN = object()
# Functions that return what another function returns: how many of these are followed.
_DEEPEST = 4
_LATER = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_Functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclasses.dataclass(frozen=True)
class _Made:
    """An object of a class that is made of its fields: a named tuple or a dataclass."""

    kind: type
    fields: Mapping[str, Any]


class NotToldError(Exception):
    """Neither annotations nor code say how a result is put together."""


def containers_of(function: Callable[..., Any], outputs: Mapping[str, Node]) -> Any:
    """A result with a number in the place of each array; None if the function returns none.

    Args:
        function: The torch function.
        outputs: What it returns, as its contract has it.

    Raises:
        NotToldError: As said.
    """
    try:
        form = _form_of(function, outputs)
        if form is _OPEN:
            if len(outputs) > 1:
                raise NotToldError
            # One result stands alone.
            form = _as_group(next(iter(outputs.values()))) if outputs else None
        return _built(form, itertools.count())
    except NotToldError:
        raise
    except Exception as error:  # of objects that are looked at, or made
        raise NotToldError from error


def _form_of(function: Callable[..., Any], outputs: Mapping[str, Node]) -> Any:
    code = _python_function(function)
    if code is None:
        return _OPEN
    form = _annotated(code, outputs)
    return _written(code, _DEEPEST) if form is _OPEN else form


def _python_function(function: Any) -> types.FunctionType | None:
    """The code that returns: that of a partial, method, wrapper, module or callable object."""
    while isinstance(function, functools.partial):
        function = function.func
    # A module's own call takes anything, and returns what `forward` does.
    function = getattr(function, "forward", function)
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        function = inspect.getattr_static(type(function), "__call__", None)
    return function if inspect.isfunction(function) else None


def _built(form: Any, numbers: Iterator[int]) -> Any:
    if form is _OPEN:
        return next(numbers)
    if isinstance(form, _Made):
        return form.kind(**{name: _built(one, numbers) for name, one in form.fields.items()})
    if isinstance(form, dict):
        return {name: _built(one, numbers) for name, one in form.items()}
    if isinstance(form, (tuple, list)):
        return type(form)(_built(one, numbers) for one in form)
    return form


def _as_group(node: Node) -> Any:
    """Groups as dicts, which is what they mostly are."""
    if isinstance(node, Mapping):
        return {name: _as_group(one) for name, one in node.items()}
    if isinstance(node, tuple):
        raise NotToldError  # a list or a tuple
    return _OPEN


# Annotations.


def _annotated(function: types.FunctionType, outputs: Mapping[str, Node]) -> Any:
    try:
        hints = typing.get_type_hints(function, localns=_closed_over(function))
        return _of_annotation(hints.get("return"), outputs)
    except Exception:  # names that are not there, code of others, what cannot be told
        return _OPEN


def _of_annotation(hint: Any, outputs: Mapping[str, Node] | None = None) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _of_annotation(arguments[0], outputs)
    if origin is tuple and arguments and arguments[-1] is not ...:
        return tuple(map(_of_annotation, arguments))
    if hint is dict or (isinstance(origin, type) and issubclass(dict, origin)):
        # Of any keys: those that the contract has.
        if not outputs:
            raise NotToldError
        return {name: _as_group(node) for name, node in outputs.items()}
    if typing.is_typeddict(hint):
        names = typing.get_type_hints(hint)
        return {name: _of_annotation(one) for name, one in names.items()}
    if isinstance(hint, type) and _has_fields(hint):
        names = typing.get_type_hints(hint)
        return _Made(hint, {name: _of_annotation(names.get(name)) for name in _fields_of(hint)})
    if origin is not None or hint in (tuple, list):
        raise NotToldError
    return _OPEN


def _has_fields(kind: type) -> bool:
    named = issubclass(kind, tuple) and hasattr(kind, "_fields")
    return dataclasses.is_dataclass(kind) or named


def _fields_of(kind: type) -> list[str]:
    if dataclasses.is_dataclass(kind):
        return [one.name for one in dataclasses.fields(kind) if one.init]
    return list(kind._fields)  # type: ignore[attr-defined]


# Code.


def _written(function: types.FunctionType, depth: int) -> Any:
    """What all ``return`` statements of a function return, if that is one kind of container."""
    if depth == 0 or function.__code__.co_flags & _LATER:
        return _OPEN
    found = [_Returns(node, function, depth).form() for node in _definitions(function.__code__)]
    return found[0] if found and all(one == found[0] for one in found) else _OPEN


def _definitions(code: types.CodeType) -> list[Any]:
    """Where the source defines this code; several lambdas of one line cannot be told apart."""
    text = "".join(linecache.getlines(code.co_filename))
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, _Functions)
        and getattr(node, "name", "<lambda>") == code.co_name
        and _first_line(node) == code.co_firstlineno
    ]


def _first_line(node: Any) -> int:
    decorators = getattr(node, "decorator_list", [])
    return int(decorators[0].lineno if decorators else node.lineno)


def _closed_over(function: types.FunctionType) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return names


class _Returns:
    """The results of one function, as its source has them."""

    def __init__(self, node: Any, function: types.FunctionType, depth: int) -> None:
        self._node = node
        self._depth = depth
        self._names = {**vars(builtins), **function.__globals__, **_closed_over(function)}
        for one in ast.walk(node.args):
            if isinstance(one, ast.arg):
                self._names.pop(one.arg, None)
        body = [node.body] if isinstance(node, ast.Lambda) else node.body
        self._inside = [one for statement in body for one in _outside_of_functions(statement)]
        # Of variables: what is assigned to them, and what else is done to them.
        self._assigned: dict[str, list[Any]] = {}
        self._entries: dict[str, dict[Any, Any]] = {}
        self._note_assignments()

    def form(self) -> Any:
        """The one form that all of them have."""
        if isinstance(self._node, ast.Lambda):
            return self._of(self._node.body)
        forms = [
            None if one.value is None else self._of(one.value)
            for one in self._inside
            if isinstance(one, ast.Return)
        ]
        if not forms:
            return None
        return forms[0] if all(form == forms[0] for form in forms) else _OPEN

    def _note_assignments(self) -> None:
        for one in self._inside:
            targets: list[ast.expr]
            value: ast.expr | None
            if isinstance(one, ast.Assign):
                targets, value = one.targets, one.value
            elif isinstance(one, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
                targets, value = [one.target], None if isinstance(one, ast.AugAssign) else one.value
            elif isinstance(one, (ast.For, ast.AsyncFor)):
                targets, value = [one.target], None
            else:
                continue
            for target in targets:
                if isinstance(target, ast.Name):
                    self._assigned.setdefault(target.id, []).append(value)
                elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
                    key = target.slice.value if isinstance(target.slice, ast.Constant) else _OPEN
                    self._entries.setdefault(target.value.id, {})[key] = value
                else:
                    # Taken apart: each name is something else.
                    for name in ast.walk(target):
                        if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                            self._assigned.setdefault(name.id, []).append(None)

    def _of(self, node: Any) -> Any:
        if isinstance(node, ast.Constant) and node.value is None:
            return None
        if isinstance(node, ast.Dict):
            return self._of_dict(node.keys, node.values)
        if isinstance(node, (ast.Tuple, ast.List)):
            if any(isinstance(one, ast.Starred) for one in node.elts):
                return _OPEN
            kind = tuple if isinstance(node, ast.Tuple) else list
            return kind(self._of(one) for one in node.elts)
        if isinstance(node, ast.IfExp):
            one, other = self._of(node.body), self._of(node.orelse)
            return one if one == other else _OPEN
        if isinstance(node, ast.Call):
            return self._of_call(node)
        return self._of_variable(node.id) if isinstance(node, ast.Name) else _OPEN

    def _of_dict(self, keys: Any, values: Any) -> Any:
        if not all(isinstance(key, ast.Constant) for key in keys):
            return _OPEN
        return {key.value: self._of(value) for key, value in zip(keys, values, strict=True)}

    def _of_variable(self, name: str) -> Any:
        values = self._assigned.get(name, [])
        if len(values) != 1 or values[0] is None:
            return _OPEN
        # Taken out for the time: a variable may be assigned a part of itself.
        self._assigned[name] = []
        form = self._of(values[0])
        entries = self._entries.get(name, {})
        if isinstance(form, dict) and _OPEN not in entries:
            form = {**form, **{key: self._of(value) for key, value in entries.items()}}
        self._assigned[name] = values
        return form

    def _of_call(self, node: ast.Call) -> Any:
        called = self._named(node.func)
        if called is dict and not node.args and all(one.arg for one in node.keywords):
            return {one.arg: self._of(one.value) for one in node.keywords}
        if isinstance(called, type) and _has_fields(called):
            return self._of_object(called, node)
        if inspect.isfunction(called) and called.__module__.partition(".")[0] != "torch":
            return _written(called, self._depth - 1)
        return _OPEN

    def _of_object(self, kind: type, node: ast.Call) -> Any:
        fields = _fields_of(kind)
        starred = any(isinstance(one, ast.Starred) for one in node.args)
        if starred or len(node.args) > len(fields) or not all(one.arg for one in node.keywords):
            return _OPEN
        given = dict(zip(fields, node.args, strict=False))
        given |= {one.arg: one.value for one in node.keywords if one.arg is not None}
        return _Made(kind, {name: self._of(value) for name, value in given.items()})

    def _named(self, node: Any) -> Any:
        """What a name, or an attribute of a module, stands for."""
        if isinstance(node, ast.Name) and node.id not in self._assigned:
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._named(node.value)
            if isinstance(owner, (types.ModuleType, type)):
                return getattr(owner, node.attr, None)
        return None


def _outside_of_functions(node: Any) -> Iterator[Any]:
    """A statement and its parts, but for those of functions that it defines."""
    if isinstance(node, (*_Functions, ast.ClassDef)):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _outside_of_functions(child)
