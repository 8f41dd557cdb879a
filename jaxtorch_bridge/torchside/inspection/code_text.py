"""What a function's code says, and which global names it reads, attribute by attribute."""

from __future__ import annotations

import builtins
import dis
import functools
import sys
import types
from collections.abc import Iterator
from typing import Any

from .careful_access import is_a, own_attributes

# A name that nothing is bound to.
UNBOUND = object()


# Code does not change, so what it says is worked out once, however often its function is planned.
_once_a_function = functools.lru_cache(maxsize=8192)


@_once_a_function
def code_lines(code: types.CodeType) -> tuple[str, ...]:
    """The code as text: instructions, names, constants; neither its file nor its lines."""
    return tuple(_code_lines(code))


def _code_lines(code: types.CodeType) -> Iterator[str]:
    yield f"code {code.co_code.hex()} {code.co_names!r} {code.co_varnames!r} {code.co_freevars!r}"
    yield f"arguments {code.co_argcount} {code.co_posonlyargcount} {code.co_kwonlyargcount}"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_lines(constant)
        else:
            yield _constant_text(constant)


def _constant_text(constant: object) -> str:
    if isinstance(constant, frozenset):
        # Its order follows the hash seed of the process.
        return f"frozenset {sorted(map(repr, constant))!r}"
    if isinstance(constant, tuple):
        return f"({', '.join(map(_constant_text, constant))})"
    return f"{type(constant).__name__} {constant!r}"


def values_read(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Dotted names of globals that the code reads, with what they stand for.

    ``ops.helper`` leads to the function where ``ops`` is a module, and so does
    ``from ops import helper`` inside of the function, once the module is loaded.
    """
    found: dict[str, Any] = {}
    cells = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = value_of_cell(cell)
        if is_a(value, types.ModuleType):
            cells[name] = value
    written: set[str] = set()
    for code in _all_codes(function.__code__):
        _read_names(code, function.__globals__, cells, found, written)
    for name, value in found.items():
        # What the function itself counts up is no constant.
        if name not in written:
            yield name, value


def value_of_cell(cell: types.CellType) -> Any:
    """What a closure's cell holds, or `UNBOUND`."""
    try:
        return cell.cell_contents
    except ValueError:
        return UNBOUND


def assigned_cells(code: types.CodeType) -> set[str]:
    """Names of enclosing functions' variables that the code, or code inside of it, assigns to."""
    return {
        argument
        for one in _all_codes(code)
        for name, argument in _instructions(one)
        if name == "STORE_DEREF"
    }


@_once_a_function
def _instructions(code: types.CodeType) -> tuple[tuple[str, Any], ...]:
    """Name and argument of each instruction."""
    return tuple((one.opname, one.argval) for one in dis.get_instructions(code))


def _all_codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _all_codes(constant)


def _read_names(
    code: types.CodeType,
    names: dict[str, Any],
    cells: dict[str, types.ModuleType],
    found: dict[str, Any],
    written: set[str],
) -> None:
    path, value = "", None  # the module that the next attribute is looked up in
    module, constants = "", []
    for kind, name in _instructions(code):
        if kind == "LOAD_CONST":
            constants.append(name)
        # A builtin is what it is; a name that nothing is bound to is told as such.
        if kind in ("LOAD_GLOBAL", "LOAD_NAME") and (name in names or not hasattr(builtins, name)):
            path, value = name, names.get(name, UNBOUND)
        elif kind in ("LOAD_DEREF", "LOAD_CLASSDEREF") and name in cells:
            path, value = name, cells[name]
        elif kind in ("LOAD_ATTR", "LOAD_METHOD") and is_a(value, types.ModuleType):
            path, value = f"{path}.{name}", _of_module(value, name)
        elif kind == "STORE_GLOBAL":
            written.add(name)
            continue
        elif kind == "IMPORT_NAME":
            # The level and the names are the two constants that Python puts there before an import.
            module = _absolute(name, constants[-2] if len(constants) > 1 else 0, names)
            continue
        elif kind == "IMPORT_FROM":
            source = sys.modules.get(module)
            # Not imported here: that would run code which the function itself may never run.
            path, value = f"{module}.{name}", _of_module(source, name) if source else UNBOUND
        else:
            path, value = "", None
            continue
        # Of a module alone nothing follows; the attributes that are read of it stand for it.
        if not is_a(value, types.ModuleType):
            found[path] = value


def _of_module(module: Any, name: str) -> Any:
    # A `__getattr__` of the module is not asked: it may import more, or look for what is missing.
    # What the function has used is mostly there.
    return (own_attributes(module) or {}).get(name, UNBOUND)


def _absolute(name: str, level: object, names: dict[str, Any]) -> str:
    if not isinstance(level, int) or not level:
        return name
    package = str(names.get("__package__") or "").split(".")
    kept = package[: len(package) - level + 1]
    return ".".join([*kept, name] if name else kept)
