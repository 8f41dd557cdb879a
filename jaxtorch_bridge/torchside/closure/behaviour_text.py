"""What decides what a function does, as text that is the same in every process.

Its code, the constants it closes over and reads, the functions and classes it leads to. Parameters
and buffers of modules count by shape alone: training changes them, and no two processes need have
the same. Nothing here is a memory address or follows the hash seed.
"""

from __future__ import annotations

import collections
import enum
import functools
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ..._compat import torch_internals as compat
from .array_digest import UNSEEN, content_of
from .code_text import UNBOUND, assigned_cells, code_lines, value_of_cell, values_read
from .defining_package import is_installed, module_of, own_packages, package_of, version_around

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range)
_TORCH_VALUES = (torch.dtype, torch.device, torch.layout, torch.memory_format)
_OPEN = (types.SimpleNamespace, collections.UserDict)
# More than any function has; keeps a surprise from taking for ever.
_MOST_LINES = 200_000
_DEEPEST = 150
# What the interpreter and libraries keep in a class beside what its source says.
_NOT_OF_THE_SOURCE = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
        *("__static_attributes__", "__parameters__", "__orig_bases__", "__type_params__"),
        *(
            "__abstractmethods__",
            "_abc_impl",
            "__dataclass_fields__",
            "__dataclass_params__",
            "__signature__",
        ),
    )
)


def behaviour_of(*values: Any, state: Iterable[torch.Tensor] = ()) -> tuple[list[str], bool]:
    """Everything that decides what the values do, and whether they have state beyond that.

    Args:
        values: Functions, modules, static values.
        state: Tensors whose contents do not count, since the function writes to them.
    """
    walk = _Walk({id(tensor) for tensor in state}, own_packages(values))
    for value in values:
        walk.add(value, 0)
    return walk.lines, walk.stateful


class _Walk:
    def __init__(self, state: set[int], own: frozenset[str]) -> None:
        self._own = own
        self.lines: list[str] = []
        self.stateful = False
        self._state = state
        self._seen: dict[int, int] = {}
        self._alive: list[Any] = []  # so that no id is used twice

    def add(self, value: Any, depth: int) -> None:
        """Describe one value and all it leads to."""
        # Not subclasses: there is more to a member of an IntEnum than its number.
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            self._say(f"{type(value).__name__} {value!r}")
        elif value is UNBOUND or len(self.lines) > _MOST_LINES or depth > _DEEPEST:
            self._say("...")
        elif isinstance(value, tuple) and type(value) is tuple:
            # Not by identity: whether two equal constants are one object is up to the compiler.
            self._all("tuple", value, depth)
        elif isinstance(value, (frozenset, set)):
            # By their texts: a set's own order follows the hash seed.
            self._say(f"{type(value).__name__} {sorted(map(self._text, value))!r}")
        elif isinstance(value, _TORCH_VALUES):
            self._say(f"{type(value).__name__} {value}")
        elif id(value) in self._seen:
            # Cycles, and helpers that call each other, end here.
            self._say(f"number {self._seen[id(value)]} again")
        else:
            self._seen[id(value)] = len(self._seen)
            self._alive.append(value)
            self._compound(value, depth + 1)

    def _is_foreign(self, thing: Any) -> bool:
        return package_of(thing) not in self._own and is_installed(thing)

    def _say(self, line: str) -> None:
        self.lines.append(line)

    def _text(self, value: Any) -> str:
        # A walk of its own: numbers of what was seen would follow the set's order.
        inner = _Walk(self._state, self._own)
        inner.add(value, 0)
        self.stateful |= inner.stateful
        return "\n".join(inner.lines)

    def _all(self, kind: str, values: Iterable[Any], depth: int) -> None:
        items = list(values)
        self._say(f"{kind} of {len(items)}")
        for item in items:
            self.add(item, depth)

    def _named(self, kind: str, items: Iterable[tuple[Any, Any]], depth: int) -> None:
        pairs = list(items)
        self._say(f"{kind} of {len(pairs)}")
        for name, value in pairs:
            self.add(name, depth)
            self.add(value, depth)

    def _compound(self, value: Any, depth: int) -> None:
        if isinstance(value, torch.Tensor):
            self._tensor(value)
        elif isinstance(value, (np.ndarray, np.generic)):
            self._say(f"array {content_of(np.asarray(value))}")
        elif isinstance(value, functools.partial):
            self._all("partial", (value.func, *value.args), depth)
            self._named("keywords", value.keywords.items(), depth)
        elif isinstance(value, types.MethodType):
            self._all("method", (value.__func__, value.__self__), depth)
        elif isinstance(value, types.FunctionType):
            self._function(value, depth)
        elif isinstance(value, type):
            self._class(value, depth)
        elif isinstance(value, torch.nn.Module):
            self._module(value, depth)
        elif isinstance(value, enum.Enum):
            self._all(f"member {value.name}", (type(value), value.value), depth)
        elif isinstance(value, (staticmethod, classmethod)):
            self._all(type(value).__name__, (value.__func__,), depth)
        elif isinstance(value, property):
            self._all("property", (value.fget, value.fset, value.fdel), depth)
        elif isinstance(value, functools.cached_property):
            self._all("cached property", (value.func,), depth)
        else:
            self._object(value, depth)

    def _tensor(self, tensor: torch.Tensor) -> None:
        tensor_words = f"tensor {tensor.dtype} {tuple(tensor.shape)} {tensor.requires_grad}"
        # Training changes it, and no two processes need have the same.
        is_state = tensor.requires_grad or id(tensor) in self._state
        content = "state" if is_state else content_of(tensor)
        self.stateful |= content in ("state", UNSEEN)
        self._say(f"{tensor_words} {content}")

    def _function(self, function: types.FunctionType, depth: int) -> None:
        self._say(f"function {function.__module__} {_own_name(function)}")
        self.lines.extend(code_lines(function.__code__))
        self._all("defaults", function.__defaults__ or (), depth)
        self._named("defaults by name", sorted((function.__kwdefaults__ or {}).items()), depth)
        # A counter is no constant.
        written = assigned_cells(function.__code__)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        closed = [(name, value_of_cell(cell)) for name, cell in cells if name not in written]
        self._named("closure", closed, depth)
        self._named("attributes", sorted(vars(function).items()), depth)
        # The version stands for all that a library's code leads to, which may be very much.
        if self._is_foreign(function):
            self._say(version_around(function))
        else:
            self._named("reads", values_read(function), depth)

    def _class(self, cls: type, depth: int) -> None:
        self._say(f"class {cls.__module__} {_own_name(cls)}")
        for part in cls.__mro__[1:]:
            self._say(f"base {part.__module__} {_own_name(part)}")
        for part in cls.__mro__:
            if self._is_foreign(part):
                self._say(version_around(part))
            else:
                self._named(f"body of {_own_name(part)}", _body(part), depth)

    def _module(self, module: torch.nn.Module, depth: int) -> None:
        self.add(type(module), depth)
        own = dict(vars(module))
        for name, parameter in own.pop("_parameters", {}).items():
            self._say(f"parameter {name} {_shape_of(parameter)}")
            self.stateful |= parameter is not None
        for name, buffer in own.pop("_buffers", {}).items():
            self._say(f"buffer {name} {_shape_of(buffer)}")
            self.stateful |= buffer is not None
        children = own.pop("_modules", {})
        self._named("parts", children.items(), depth)
        hooks = {name for name in own if name.endswith("_hooks")}
        for name in sorted(hooks):
            # Their keys are numbers that torch counts up in each process.
            self._all(name, own[name].values(), depth)
        rest = {name: value for name, value in own.items() if not _is_bookkeeping(name)}
        self._named("attributes", sorted((k, v) for k, v in rest.items() if k not in hooks), depth)
        if compat.is_scripted(module):
            self._say(f"script {getattr(module, 'code', '')}")

    def _object(self, value: Any, depth: int) -> None:
        kind = type(value)
        wrapped = getattr(value, "__wrapped__", None)
        if module_of(kind).partition(".")[0] == "jaxtorch_bridge":
            # A callable of ours stands for its torch function; plans and caches for nothing.
            self._all("callable", (getattr(value, "torch", None),), depth)
        elif isinstance(value, Mapping):
            self.add(kind, depth)
            self._named("mapping", value.items(), depth)
        elif isinstance(value, (list, tuple, collections.deque)):
            self.add(kind, depth)
            self._all("sequence", value, depth)
        elif callable(wrapped):
            # `functools.lru_cache` and the like; what it keeps counts for nothing.
            self._all("wrapper", (wrapped,), depth)
        elif isinstance(value, types.ModuleType) or inspect.isbuiltin(value):
            self._say(f"{kind.__name__} {getattr(value, '__module__', '')} {value.__name__}")
        elif self._is_foreign(kind):
            self._say(f"object {module_of(kind)} {kind.__qualname__}")
            # Another live object of the class may do something else.
            self.stateful = True  # for all that is known
            self._named("attributes", _plain_attributes(value), depth)
        else:
            self.add(kind, depth)
            self._named("attributes", sorted(_attributes(value).items()), depth)


def _own_name(thing: Any) -> str:
    return str(thing.__qualname__).rpartition("<locals>.")[2]


def _body(cls: type) -> Iterator[tuple[str, Any]]:
    for name, value in vars(cls).items():
        if name in _NOT_OF_THE_SOURCE or name.startswith("__pydantic"):
            continue
        # What C gives to a class has no state of its own.
        is_slot = inspect.ismemberdescriptor(value) or inspect.isgetsetdescriptor(value)
        yield name, name if is_slot else value


def _attributes(value: Any) -> dict[str, Any]:
    found = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and name not in ("__dict__", "__weakref__"):
                found[name] = getattr(value, name)
    return {name: one for name, one in found.items() if not _is_bookkeeping(name)}


def _plain_attributes(value: Any) -> list[tuple[str, Any]]:
    """What a library's object says of itself; it may lead anywhere, so it is not followed."""
    found = getattr(value, "__dict__", None)
    if not isinstance(found, dict):
        return []
    if isinstance(value, _OPEN) or type(value).__name__ == "Namespace":
        return sorted(found.items())
    return sorted((name, one) for name, one in found.items() if type(one) in _PLAIN)


def _is_bookkeeping(name: str) -> bool:
    # Ours keeps bound methods on the instance, torch's what `Module.compile` made.
    return name in ("_jax_callables", "_compiled_call_impl")


def _shape_of(tensor: torch.Tensor | None) -> str:
    return "none" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
