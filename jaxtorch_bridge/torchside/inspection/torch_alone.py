"""Whether a function refers to nothing but torch, and to numbers and texts."""

from __future__ import annotations

import dis
import functools
import types
from typing import Any

from .bytecode_names import BUILTINS, names_used
from .careful_access import is_a
from .code_text import value_of_cell
from .compared_values import PLAIN
from .defining_package import module_of

# What could be anything.
_ANY = frozenset(("eval", "exec", "globals", "vars", "getattr", "__import__"))


def refers_to_torch_alone(function: Any) -> bool:
    """Whether no tensor can be reached from a function's code.

    No other helper is looked into: a library may keep tensors anywhere.
    """
    if not is_a(function, types.FunctionType):
        return False
    read, written = names_used(function.__code__)
    if written or read & _ANY or _imports(function.__code__) or vars(function):
        return False
    values = [function.__globals__.get(name) for name in read - BUILTINS]
    values += map(value_of_cell, function.__closure__ or ())
    values += [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    return all(is_a(value, PLAIN) or _is_of_torch(value) for value in values)


def _is_of_torch(value: Any) -> bool:
    if is_a(value, types.ModuleType):
        name = str(vars(value).get("__name__", ""))
    elif is_a(value, (types.FunctionType, types.BuiltinFunctionType, type)):
        name = module_of(value)
    else:
        return False
    return name.partition(".")[0] == "torch"


@functools.lru_cache(maxsize=4096)
def _imports(code: types.CodeType) -> bool:
    inner = (one for one in code.co_consts if isinstance(one, types.CodeType))
    has_import = any(one.opname == "IMPORT_NAME" for one in dis.get_instructions(code))
    return has_import or any(map(_imports, inner))
