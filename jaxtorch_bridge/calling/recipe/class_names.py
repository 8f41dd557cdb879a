"""Classes by name: found among the modules that are loaded, and never imported."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from .not_data import NotDataError, RecipeError


def name_of_class(kind: type) -> str:
    """The name that another process finds the class by.

    Raises:
        NotDataError: Nothing but this class itself leads to it.
    """
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _found(name) is not kind:
        raise NotDataError(f"the class `{name}` is not found by its name")
    return name


def class_of_name(name: Any) -> type:
    """The class of that name, if a module that is loaded has it.

    Raises:
        RecipeError: None has.
    """
    found = _found(name) if isinstance(name, str) else None
    if not isinstance(found, type):
        raise RecipeError(
            f"it names a class `{str(name)[:200]}`, which no module that is loaded here has; "
            "import the module first"
        )
    return found


def _found(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    # By what lies in their dicts alone: a module's or a class's own code could answer anything
    # else, and one that is loaded lazily would be loaded.
    if not issubclass(type(found), ModuleType):
        return None
    names = object.__getattribute__(found, "__dict__")
    for part in path.split("."):
        found = names.get(part)
        if not isinstance(found, type):
            return None
        names = type.__getattribute__(found, "__dict__")
    return found
