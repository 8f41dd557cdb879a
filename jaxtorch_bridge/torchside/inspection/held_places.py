"""What an object holds that code may read from it, and which of it to look at further."""

from __future__ import annotations

import collections
import contextvars
import datetime
import decimal
import functools
import gc
import io
import logging
import operator
import os
import re
import sys
import threading
import types
import uuid
import weakref
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..._compat.torch.modules import OF_EVERY_MODULE, hook_tables
from .bytecode_names import every_name_in, globals_read, is_of_framework, names_used
from .careful_access import (
    NOT_OF_THE_SOURCE,
    attribute,
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
from .compared_values import PLAIN, compared, is_buffer, is_c_data
from .deep_contents import LRU_CACHE
from .defining_package import is_installed, is_installed_module
from .module_attributes import module_attributes_read

# What else code reads numbers from. Torch's own objects are not looked into but for these.
LOOKED_INTO = (
    types.MappingProxyType,
    contextvars.ContextVar,
    threading.local,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
)
CONTAINERS = (list, dict, tuple, set, frozenset, collections.deque)
# Not the abstract class of that name, which asks any other for its hash.
FILES = io.IOBase.__mro__[1]
WEAK = (weakref.ref, *weakref.ProxyTypes)
AROUND_FUNCTIONS = (property, staticmethod, classmethod)
# Of Python's own classes: these do not change, or say nothing of what code computes.
_FIXED = (
    *(types.BuiltinFunctionType, types.CodeType, types.FrameType, types.TracebackType),
    *(types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.GenericAlias, types.UnionType),
    *(type(Ellipsis), type(NotImplemented), range, re.Pattern, uuid.UUID, decimal.Decimal),
    *(datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo),
    *(operator.itemgetter, operator.attrgetter, operator.methodcaller),
    *(logging.Logger, logging.Handler, weakref.finalize),
)
# Of Python's own modules: what waits, locks and runs other things, and keeps no values.
_TOOLS = frozenset(("_thread", "_multiprocessing", "select", "selectors")) | frozenset(
    ("concurrent.futures.thread", "concurrent.futures.process", "multiprocessing.synchronize")
)
_DEFAULT_FACTORY = vars(collections.defaultdict)["default_factory"]
# Of frameworks: classes of small objects that code reads values from.
_OPEN_PARTS = ("torch.distributions", "torch.utils.data", "numpy")
_OF_A_MODULE = frozenset(vars(types.ModuleType("")))
_WRITES = frozenset(
    ("add", "append", "appendleft", "clear", "discard", "extend", "insert", "put", "remove")
) | frozenset(("update", "write", "writelines"))
# Where code has these, the names of what it reads are not in it.
_BY_COMPUTED_NAMES = frozenset(("getattr", "vars", "__dict__", "attrgetter"))
_OF_ITS_OWN_MODULE = frozenset(("globals", "eval", "exec"))
_OF_ANY_MODULE = frozenset(("modules", "import_module", "__import__"))
_ENVIRONMENT = frozenset(("environ", "environb", "getenv", "getenvb"))


@dataclass(frozen=True)
class Order:
    """In what order keys stand."""

    names: tuple[Hashable, ...]


def places_of(held: Any) -> Iterator[tuple[Hashable, Any]]:
    """Attributes, keys and positions in an object, each with what stands there."""
    if is_a(held, CONTAINERS):
        yield from _places_of_container(held)
        # A subclass may have some beside its items.
        for name, value in stored_items(own_attributes(held) or {}):
            yield ("attribute", name), value
    elif is_a(held, type):
        own = list(class_attributes(held).items())
        yield from ((name, value) for name, value in own if _is_set(name, value))
    elif is_a(held, types.FunctionType):
        yield from _places_of_function(held)
    elif is_a(held, types.ModuleType):
        for name, value in stored_items(vars(held)):
            is_read = is_a(value, (*PLAIN, torch.Tensor)) or leads_on(value) or is_buffer(value)
            if is_read and name not in _OF_A_MODULE and not is_a(value, types.ModuleType):
                yield name, value
    elif is_a(held, np.ndarray):
        if held.dtype.hasobject:
            yield from _places_of_array(held)
        # A subclass's, such as a mask.
        yield from stored_items(own_attributes(held) or {})
    elif is_a(held, torch.optim.Optimizer):
        # Its state moves in every step, which no other code reads.
        yield "param_groups", (own_attributes(held) or {}).get("param_groups")
    elif is_a(held, contextvars.ContextVar):
        try:
            yield "value", held.get()
        except LookupError:
            yield "value", None
    elif is_a(held, torch.nn.Module):
        # Its numbers, tensors and parts are watched by other means.
        attributes = stored_items(own_attributes(held) or {})
        yield from (
            (name, value)
            for name, value in attributes
            if name not in OF_EVERY_MODULE and not is_a(value, (bool, int, float, str))
        )
    elif is_a(held, types.MappingProxyType):
        yield "mapping", behind_proxy(held)
    elif is_a(held, FILES) or is_tool(held):
        return
    elif is_c_data(held):
        # What a pointer was made from, as long as it is known.
        yield "made from", attribute(held, "_objects")
        yield from stored_items(own_attributes(held) or {})
    elif _is_closed(held):
        yield from _users_code_in(held)
    else:
        yield from places_of_object(held)


def places_of_module(module: torch.nn.Module) -> Iterator[tuple[Hashable, Any]]:
    """Of one that stands in a container or an object: also what is watched of others elsewhere."""
    own = own_attributes(module) or {}
    yield from ((name, value) for name, value in stored_items(own) if name not in OF_EVERY_MODULE)
    yield "training", own.get("training")
    tables = {name: own.get(name) for name in ("_parameters", "_buffers", "_modules")}
    for name, table in {**tables, **hook_tables(module)}.items():
        # Those of scripts are no dicts.
        if isinstance(table, dict):
            yield from (((name, key), value) for key, value in stored_items(table))


def classes_of(held: Any) -> list[type]:
    """Those that an object finds attributes in which it has not itself."""
    plain = any(type(held) is kind for kind in CONTAINERS)
    if plain or is_a(held, (types.FunctionType, types.MethodType, types.ModuleType)):
        return []
    # Of modules the code alone, that of libraries stays what it is.
    leaves_out = is_installed if is_a(held, torch.nn.Module) else is_of_framework
    if is_a(held, type):
        own, above = bases_of(held), bases_of(type(held))
        return [
            *(kind for kind in own if not leaves_out(kind)),
            *(kind for kind in above if not is_installed(kind) and kind is not type),
        ]
    return [kind for kind in bases_of(type(held)) if not leaves_out(kind)]


def leads_on(value: Any) -> bool:
    """Whether to look at what a value holds."""
    if is_a(value, PLAIN):
        # An enumeration's, say, whose methods read something else.
        return type(value) not in PLAIN and not _is_of_library(type(value))
    if is_a(value, (*CONTAINERS, *LOOKED_INTO, *WEAK, torch.nn.Module, *AROUND_FUNCTIONS)):
        return True
    if is_a(value, torch.Tensor):
        return bool(own_attributes(value)) or not is_of_framework(type(value))
    if is_a(value, np.ndarray):
        return bool(value.dtype.hasobject)
    if is_a(value, types.FunctionType):
        # Of the many in libraries it is enough to know which they are, but for decorators.
        return not _is_of_library(value) or _stands_around_others(value)
    if is_a(value, type):
        return not _is_of_library(value)
    if is_a(value, types.ModuleType):
        return not is_installed_module(str((own_attributes(value) or {}).get("__name__", "")))
    if is_a(value, types.MethodType):
        return leads_on(value.__self__)
    if is_a(value, types.BuiltinFunctionType):
        # What only writes, to a log of calls say, is no sign that anybody reads there.
        owner = value.__self__
        reads = not is_a(owner, types.ModuleType) and value.__name__ not in _WRITES
        return reads and leads_on(owner)
    if is_a(value, _FIXED) or type(value) is object or is_tool(value):
        return False
    # A view of a dict, an iterator, a cell: Python's own, around something else.
    return any(True for _ in _users_code_in(value)) if _is_closed(value) else True


def is_tool(value: Any) -> bool:
    """Whether an object of Python's own waits, locks or runs other things, and keeps no values."""
    # Exactly: a subclass may keep some. A `threading.local` is for nothing else.
    module = type(value).__module__
    return module in _TOOLS and not is_a(value, threading.local)


def _is_of_library(value: Any) -> bool:
    return is_of_framework(value) or is_installed(value)


def _stands_around_others(function: types.FunctionType) -> bool:
    """Whether a decorator made it, of what is no library's."""
    values = [*map(value_of_cell, function.__closure__ or ()), vars(function).get("__wrapped__")]
    return any(is_a(one, types.FunctionType) and not _is_of_library(one) for one in values)


def _is_closed(value: Any) -> bool:
    """Whether an object is a framework's, whose attributes say nothing of what it computes."""
    module = type(value).__module__
    if module == "builtins" or is_a(value, (torch.Tensor, *LOOKED_INTO)):
        return False
    # Those of compiled classes have no `__module__` of their own.
    is_frameworks = is_of_framework(value) or is_of_framework(type(value))
    return is_frameworks and not module.startswith(_OPEN_PARTS)


def _users_code_in(value: Any) -> Iterator[tuple[Hashable, Any]]:
    """Functions that an object of a framework's was made of."""
    if not callable(value) or is_a(value, torch.nn.Module):
        return
    for name, one in places_of_object(value):
        if is_a(one, (types.FunctionType, types.MethodType, functools.partial)) and leads_on(one):
            yield name, one


def target_of(weak: Any) -> Any:
    """What a weak reference or proxy refers to; None if that is gone."""
    if is_a(weak, weakref.ref):
        return weakref.ref.__call__(weak)
    # A proxy hands all on, also who a method belongs to.
    return attribute(attribute(weak, "__init__"), "__self__")


def _places_of_array(held: Any) -> Iterator[tuple[Hashable, Any]]:
    if held.dtype.names is None:
        yield from enumerate(np.ndarray.tolist(np.ndarray.ravel(held)))
        return
    for name in held.dtype.names:
        # A view, made anew each time: what stands in it counts.
        field = np.ndarray.__getitem__(held, name)
        inner = (
            _places_of_array(field) if field.dtype.hasobject else enumerate(field.ravel().tolist())
        )
        yield from (((name, place), value) for place, value in inner)


def _places_of_container(held: Any) -> Iterator[tuple[Hashable, Any]]:
    if is_a(held, dict):
        items = [(key, compared(key), value) for key, value in stored_items(held)]
        yield from ((name, value) for _, name, value in items)
        # Where it is of use: in a picture they have none.
        yield ("order",), Order(tuple(name for _, name, _ in items))
        yield from ((("key", name), key) for key, name, _ in items if leads_on(key))
        if is_a(held, collections.defaultdict):
            yield ("default",), _DEFAULT_FACTORY.__get__(held)
    elif is_a(held, (list, tuple, collections.deque)):
        yield from enumerate(entries(held))
    else:
        yield from ((compared(one), one) for one in entries(held))


def _places_of_function(held: types.FunctionType) -> Iterator[tuple[Hashable, Any]]:
    cells = zip(held.__code__.co_freevars, held.__closure__ or (), strict=True)
    closed_over = {name: value_of_cell(cell) for name, cell in cells}
    yield from (((name,), value) for name, value in closed_over.items())
    yield from stored_items(vars(held))
    yield ("code",), held.__code__
    defaults = (("defaults",), held.__defaults__), (("named",), held.__kwdefaults__)
    # Most have none, and there are many functions.
    yield from (one for one in defaults if one[1] is not None)
    table = held.__globals__
    if is_installed(held):
        # A decorator's: what it stands around is the user's.
        return
    named = {name: table.get(name) for name in globals_read(held)}
    for name, value in named.items():
        if is_a(value, PLAIN) or (leads_on(value) and not is_a(value, types.ModuleType)):
            yield ("global", name), value
    for of_module, name in module_attributes_read(held):
        value = of_module.get(name)
        if is_a(value, PLAIN) or leads_on(value):
            yield ("module", id(of_module), name), value
    libraries = list[dict[str, Any]]()
    for of_module, name in module_attributes_read(held, of_libraries=True):
        libraries.append(of_module)
        value = of_module.get(name)
        # Settings of a process, such as its command's arguments.
        if not leads_on(value):
            yield ("library", id(of_module), name), value
            continue
        # Nothing further: an object of a library's may lead to all that has been imported.
        for key, inner in _plain_places_of(value):
            yield ("library", id(of_module), name, key), inner
    yield from _settings_read(libraries, [*named.values(), *closed_over.values()])
    names = every_name_in(held.__code__)
    if names & _ENVIRONMENT:
        yield ("environment",), (own_attributes(os.environ) or {}).get("_data")
    for module in _modules_read_by_computed_names(held, names, {**named, **closed_over}):
        if leads_on(module):
            yield ("whole module", id(module)), module


def _plain_places_of(value: Any) -> Iterator[tuple[Hashable, Any]]:
    own = list(stored_items(own_attributes(value) or {}))
    if is_a(value, dict):
        own += [(("key", compared(key)), one) for key, one in stored_items(value)]
    elif is_a(value, CONTAINERS):
        own += enumerate(entries(value))
    yield from ((name, one) for name, one in own if is_a(one, PLAIN))


def _settings_read(
    libraries: list[dict[str, Any]], values: list[Any]
) -> Iterator[tuple[Hashable, Any]]:
    """What libraries keep for a process, or for a thread, and go by when they compute."""
    if any(one is vars(decimal) for one in libraries) or any(
        value is decimal.Decimal or is_a(value, decimal.Decimal) for value in values
    ):
        context = decimal.getcontext()
        # Not its flags, which every rounding sets.
        names = ("prec", "rounding", "Emin", "Emax", "clamp")
        yield from ((("decimal", name), getattr(context, name)) for name in names)
        yield ("decimal", "traps"), repr(context.traps)
    if any(one is vars(np) for one in libraries):
        yield from ((("numpy", name), value) for name, value in np.geterr().items())


def _modules_read_by_computed_names(
    function: types.FunctionType, names: frozenset[str], values: dict[str, Any]
) -> Iterator[types.ModuleType]:
    found = list(values.values())
    if names & _BY_COMPUTED_NAMES or any(is_a(one, operator.attrgetter) for one in found):
        yield from (one for one in found if is_a(one, types.ModuleType))
    called: set[Any] = set()
    # By that name alone: many modules have an `eval`.
    if names_used(function.__code__)[0] & _OF_ITS_OWN_MODULE:
        called.add(function.__globals__.get("__name__"))
    if names & _OF_ANY_MODULE:
        called |= _texts_in(function.__code__)
    for name in called:
        module = sys.modules.get(str(name))
        if isinstance(module, types.ModuleType):
            yield module


@functools.lru_cache(maxsize=4096)
def _texts_in(code: types.CodeType) -> frozenset[str]:
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return frozenset(one for one in code.co_consts if isinstance(one, str)).union(
        *map(_texts_in, inner)
    )


def places_of_object(held: Any) -> Iterator[tuple[Hashable, Any]]:
    """As `places_of`, of an object of no kind that is known."""
    named = [*slots_of(held), *stored_items(own_attributes(held) or {})]
    yield from named
    if is_a(held, (torch.Tensor, threading.local, LRU_CACHE)):
        return
    # What objects of compiled classes have is nothing that Python's attributes show: the function
    # in a `partial`, the list under an iterator, who a method of a list belongs to.
    known = {id(value) for _, value in named} | {id(own_attributes(held)), id(type(held))}
    others = (one for one in gc.get_referents(held) if id(one) not in known)
    yield from ((("referent", count), one) for count, one in enumerate(others))


def _is_set(name: str, value: Any) -> bool:
    """Whether it is what code sets on a class, a method in place of another for one."""
    if name in NOT_OF_THE_SOURCE:
        return False
    return is_a(value, (*PLAIN, torch.Tensor, types.FunctionType)) or leads_on(value)
