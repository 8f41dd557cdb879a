"""The names that Python code reads and writes."""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import types
from typing import Any

import torch

from ..._compat.torch.modules import hook_tables
from .careful_access import attribute, unwrapped
from .defining_package import module_of
from .module_attributes import module_attributes_read

# Names bound to these are taken to stay what they are; following them would cost every call.
BUILTINS = frozenset(dir(builtins))
# Helpers of these are not followed.
_FRAMEWORKS = frozenset({"torch", "jax", "numpy", "builtins", "typing", "jaxtorch_bridge"})
_PLAIN = (bool, int, float, complex, str, type(None))


def is_of_framework(value: Any) -> bool:
    """Whether a function, class or object belongs to a framework, where no user's modules are."""
    return module_of(value).partition(".")[0] in _FRAMEWORKS


# The code of models is asked for at every evaluation.
@functools.lru_cache(maxsize=4096)
def names_used(code: types.CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """Globals that code reads; globals and closure names that it writes to (a call counter)."""
    read, written = set[str](), set[str]()
    for instruction in dis.get_instructions(code):
        if instruction.opname == "LOAD_GLOBAL":
            read.add(instruction.argval)
        elif instruction.opname in ("STORE_GLOBAL", "STORE_DEREF"):
            # What code counts up would be another key in every call, and a new plan each time.
            written.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            inner_read, inner_written = names_used(constant)
            read |= inner_read
            written |= inner_written
    return frozenset(read), frozenset(written)


@functools.lru_cache(maxsize=4096)
def every_name_in(code: types.CodeType) -> frozenset[str]:
    """Every name in code, of globals and attributes, also in functions inside of it."""
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    return frozenset(code.co_names).union(*map(every_name_in, inner))


def globals_read(function: types.FunctionType) -> set[str]:
    """The names of globals that a function's code reads, without those that it counts up."""
    code, table = function.__code__, function.__globals__
    read = names_used(code)[0] - _globals_written(code)
    # A name of Python's own may stand for something else in a module.
    return {name for name in read if name not in BUILTINS or name in table}


@functools.lru_cache(maxsize=4096)
def _globals_written(code: types.CodeType) -> frozenset[str]:
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    stores = (one for one in dis.get_instructions(code) if one.opname == "STORE_GLOBAL")
    return frozenset(one.argval for one in stores).union(*map(_globals_written, inner))


def plain_values_read(
    module: torch.nn.Module,
) -> tuple[list[tuple[str, types.CellType]], list[tuple[dict[str, Any], str]]]:
    """Where the code of a module's parts, and of their hooks, finds numbers and texts by name.

    Returns:
        Variables of enclosing functions by their names, and globals: the table that each is in,
        and its name.
    """
    cells: list[tuple[str, types.CellType]] = []
    names: list[tuple[dict[str, Any], str]] = []
    known: set[Any] = set()
    for function in _code_of(module):
        written = names_used(function.__code__)[1]
        own = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        cells += [pair for pair in own if pair[0] not in written and _is_plain_cell(pair[1])]
        table = function.__globals__
        for name in sorted(globals_read(function)):
            if (id(table), name) not in known and isinstance(table.get(name, ...), _PLAIN):
                known.add((id(table), name))
                names.append((table, name))
        for of_module, name in module_attributes_read(function):
            if (id(of_module), name) not in known and isinstance(of_module.get(name), _PLAIN):
                known.add((id(of_module), name))
                names.append((of_module, name))
    return cells, names


def _code_of(module: torch.nn.Module) -> list[types.FunctionType]:
    """The functions that calls of its parts run, each once, without torch's own."""
    found: dict[int, types.FunctionType] = {}
    for part in module.modules():
        own = vars(part)
        # An instance may have a `forward` of its own.
        code: list[Any] = [own.get("forward", getattr(type(part), "forward", None))]
        for hooks in hook_tables(part).values():
            code += hooks.values()
        for item in code:
            # What decorators close over stays what it is; following that would cost every call.
            function = unwrapped(attribute(item, "__func__", item))
            if inspect.isfunction(function) and not is_of_framework(function):
                found[id(function)] = function
    return list(found.values())


def _is_plain_cell(cell: types.CellType) -> bool:
    try:
        return isinstance(cell.cell_contents, _PLAIN)
    except ValueError:  # not bound yet
        return False
