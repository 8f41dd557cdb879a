"""What code reads that cannot be looked at: files, the clock, memory of compiled classes."""

from __future__ import annotations

import ctypes
import datetime
import os
import pathlib
import queue
import random
import secrets
import time
import types
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch

from .bytecode_names import every_name_in, is_of_framework, names_used
from .careful_access import attribute, bases_of, class_attributes, is_a, own_attributes
from .code_text import value_of_cell
from .compared_values import PLAIN, is_buffer
from .defining_package import is_installed
from .held_places import CONTAINERS, FILES, LOOKED_INTO, WEAK, is_tool, places_of_object
from .module_attributes import module_attributes_read

# Functions whose results come from outside of the process, or are other ones each time.
_FROM_OUTSIDE = (
    *(time.time, time.time_ns, time.monotonic, time.monotonic_ns, time.perf_counter),
    *(time.perf_counter_ns, time.process_time, time.localtime, time.gmtime, time.ctime),
    *(os.urandom, os.listdir, os.scandir, os.stat, os.path.exists, os.path.getmtime),
    *(secrets.randbits, secrets.randbelow, secrets.token_bytes, uuid.uuid1, uuid.uuid4),
    *(np.load, np.fromfile, np.loadtxt, np.genfromtxt, np.memmap, torch.load, torch.from_file),
)
_BY_NUMBER = frozenset(map(id, _FROM_OUTSIDE))
# Methods whose classes code has by name.
_METHODS_FROM_OUTSIDE = {
    datetime.datetime: frozenset(("now", "utcnow", "today")),
    datetime.date: frozenset(("today",)),
    pathlib.Path: frozenset(("exists", "iterdir", "glob", "stat")),
}
# Functions of libraries that have these names; many an object has such methods.
_OPENERS = frozenset(("open", "load", "imread", "urlopen"))
# Methods and functions of these names read files, whoever has them.
_READ_FILES = frozenset(("read_text", "read_bytes", "fromfile", "loadtxt", "load_file", "read_csv"))
# Of `ctypes`, of memory that stands elsewhere.
_POINTERS = (ctypes.POINTER(ctypes.c_char).__mro__[1], ctypes.c_void_p, ctypes.c_char_p)
# Methods that no code has to name. Others of Python's own run when objects are made and shown.
_RUN_UNNAMED = frozenset(
    (
        *("forward", "__call__", "__getattr__", "__getattribute__", "__getitem__", "__get__"),
        *("__enter__", "__exit__", "__iter__", "__next__", "__len__", "__bool__", "__contains__"),
        *("__int__", "__float__", "__index__", "__complex__", "__missing__", "__array__"),
        *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__"),
        *("__rtruediv__", "__pow__", "__rpow__", "__neg__", "__eq__", "__lt__", "__gt__"),
        *("__matmul__", "__rmatmul__", "__torch_function__", "__torch_dispatch__"),
    )
)


def hidden_in(held: Any) -> str:
    """What of an object cannot be looked at, in words; empty if there is nothing."""
    if is_a(held, FILES):
        # One that is written to alone, such as a log, is nothing that code reads.
        is_pythons = type(held).__module__ in ("_io", "io")
        is_read = attribute(held, "closed") is False and attribute(held, "readable", bool)()
        return f"a `{type(held).__name__}`" if is_pythons and is_read else ""
    if is_a(held, _POINTERS) and not attribute(held, "_objects") and bool(held):
        return f"a `{type(held).__name__}` of ctypes"
    if is_a(held, random.SystemRandom):
        return "the operating system's random numbers"
    if is_a(held, (*CONTAINERS, *LOOKED_INTO, *WEAK, queue.SimpleQueue)) or is_tool(held):
        return ""
    if is_a(held, (types.FunctionType, types.BuiltinFunctionType, types.ModuleType)):
        return ""
    if own_attributes(held) is not None or is_a(held, (np.ndarray, type)) or is_buffer(held):
        return ""
    if is_a(held, PLAIN) or is_of_framework(type(held)):
        return ""
    # One with no attributes at all, not even a function's name: what it knows stands in memory of
    # its own.
    is_written_in_python = any("__slots__" in class_attributes(one) for one in bases_of(type(held)))
    has_places = any(True for _ in places_of_object(held))
    if is_written_in_python or has_places or is_a(attribute(held, "__name__"), str):
        return ""
    return f"a `{type(held).__module__}.{type(held).__qualname__}`"


def reads_outside(value: Any) -> str:
    """The same of a library's function that stands in a table or an object."""
    return f"`{value.__name__}`" if id(value) in _BY_NUMBER else ""


def hidden_in_code(
    running: Iterable[types.FunctionType], methods: Iterable[types.FunctionType]
) -> str:
    """What code reads that cannot be looked at, in words; empty if there is nothing.

    Args:
        running: Functions that may be called.
        methods: Those in classes, which are called if one that runs has their name: others of the
            class may save and load what they like.
    """
    waiting, left = list(running), {id(one): one for one in methods}
    names = set(_RUN_UNNAMED)
    while waiting:
        for function in waiting:
            names |= {*every_name_in(function.__code__), *function.__code__.co_freevars}
            found = min(_sources_in(function), default="")
            if found:
                return f"`{function.__qualname__}`, whose code has `{found}`"
        waiting = [one for one in left.values() if one.__name__ in names]
        for function in waiting:
            del left[id(function)]
    return ""


def _sources_in(function: types.FunctionType) -> Iterator[str]:
    code = function.__code__
    names = every_name_in(code)
    yield from names & _READ_FILES
    global_names = names_used(code)[0]
    table = function.__globals__
    yield from global_names & {"open"}
    values = [table.get(name) for name in global_names]
    values += [value_of_cell(cell) for cell in function.__closure__ or ()]
    values += [
        of_module.get(name)
        for of_module, name in module_attributes_read(function, of_libraries=True)
    ]
    for value in values:
        if id(value) in _BY_NUMBER:
            yield str(attribute(value, "__name__"))
        elif is_a(value, (types.FunctionType, types.BuiltinFunctionType)):
            name = attribute(value, "__name__")
            yield from {name} & _OPENERS if is_installed(value) else ()
        elif is_a(value, type):
            for kind, methods in _METHODS_FROM_OUTSIDE.items():
                yield from methods & names if value is kind else ()
