"""What code reads from Python modules: ``settings.SCALE``, ``from settings import SCALE``."""

from __future__ import annotations

import dis
import functools
import importlib.util
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .code_text import value_of_cell
from .defining_package import is_installed_module


def module_attributes_read(
    function: types.FunctionType, *, of_libraries: bool = False
) -> Iterator[tuple[dict[str, Any], str]]:
    """The attributes of Python modules that a function's code reads: a module's names, and which.

    Modules that nobody has imported yet are not seen.

    Args:
        function: The function.
        of_libraries: Those of Python's and of installed packages instead of all others.
    """
    known: set[tuple[int, str]] = set()
    for chain in _chains_in(function.__code__):
        value = _origin(function, chain)
        for name in chain.path:
            if type(value) is not types.ModuleType:
                break
            is_asked_for = is_installed_module(str(vars(value).get("__name__", ""))) == of_libraries
            # Nobody sets those of libraries, while to look at them would cost every call.
            if not is_asked_for and not of_libraries:
                break
            table = vars(value)
            value = table.get(name)
            is_module = type(value) is types.ModuleType
            if is_asked_for and not is_module and (id(table), name) not in known:
                known.add((id(table), name))
                yield table, name


@dataclass(frozen=True)
class _Chain:
    """A name, or an import, and the attributes that code goes on to.

    Attributes:
        name: A global or a variable of an enclosing function; empty for an import.
        module: What is imported.
        level: The dots in front of it.
        path: The attributes.
    """

    name: str = ""
    module: str = ""
    level: int = 0
    path: tuple[str, ...] = ()

    def to(self, attribute: str) -> _Chain:
        """One attribute further."""
        return _Chain(self.name, self.module, self.level, (*self.path, attribute))


@functools.lru_cache(maxsize=4096)
def _chains_in(code: types.CodeType) -> tuple[_Chain, ...]:
    found: dict[_Chain, None] = {}
    # Variables that an import was put into, and the last import.
    variables: dict[str, _Chain] = {}
    imported = _Chain()
    constants: list[Any] = []
    current: _Chain | None = None
    is_import = False
    # A count, say: as a part of the key it would make every call another one. By `+=` only the
    # attribute's name is at hand.
    written: set[_Chain] = set()
    counted: set[str] = set()
    before = ""
    for instruction in dis.get_instructions(code):
        name, value = instruction.opname, instruction.argval
        was_import, is_import = is_import, False
        last, before = before, name
        if name in ("LOAD_ATTR", "LOAD_METHOD"):
            current = current and current.to(value)
        elif name == "IMPORT_NAME":
            # Above it lie the level and the names that are taken; without these, `import a.b` is a.
            level, taken = constants[-2:]
            imported = _Chain("", value if taken else value.partition(".")[0], level)
            current, is_import = imported, True
        elif name == "IMPORT_FROM":
            current, is_import = imported.to(value), True
        elif name.startswith("STORE_FAST"):
            # Newer releases store, and load or store again, by one instruction with two names.
            stored, *others = value if isinstance(value, tuple) else (value,)
            variables.pop(stored, None)
            if was_import and current is not None:
                variables[stored] = current
            current = variables.get(others[0]) if others and "LOAD" in name else None
        elif name.startswith("LOAD_FAST"):
            current = variables.get(value[-1] if isinstance(value, tuple) else value)
        elif name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
            current = _Chain(value)
        else:
            if name == "STORE_ATTR" and current is not None:
                written.add(current.to(value))
            elif name == "STORE_ATTR" and last == "SWAP":
                counted.add(value)
            elif name in ("LOAD_CONST", "LOAD_SMALL_INT"):
                constants.append(value)
            current = None
        if current is not None and current.path:
            found[current] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= dict.fromkeys(_chains_in(constant))
    return tuple(chain for chain in found if chain not in written and chain.path[-1] not in counted)


def _origin(function: types.FunctionType, chain: _Chain) -> Any:
    if chain.name:
        names = function.__code__.co_freevars
        if chain.name in names:
            return value_of_cell((function.__closure__ or ())[names.index(chain.name)])
        return function.__globals__.get(chain.name)
    try:
        package = function.__globals__.get("__package__")
        name = importlib.util.resolve_name("." * chain.level + chain.module, package)
    except (ImportError, ValueError):  # a relative import outside of a package
        return None
    return sys.modules.get(name)
