"""Which package a function or class comes from, and whether its code is somebody else's."""

from __future__ import annotations

import functools
import importlib.metadata
import site
import sys
import sysconfig
import types
from collections.abc import Iterable
from typing import Any

# Packages whose code stays what it is as long as their version does.
_LIBRARIES = frozenset({"torch", "jax", "jaxlib", "numpy", "jaxtorch_bridge", "jaxtyping"})


def package_of(thing: Any) -> str:
    """The top-level package of a function, class or object; empty if that is not known."""
    if hasattr(thing, "func") and not hasattr(thing, "__module__"):
        return package_of(thing.func)
    name = getattr(thing, "__module__", None) or getattr(type(thing), "__module__", "")
    return str(name).partition(".")[0]


def own_packages(values: Iterable[Any]) -> frozenset[str]:
    """The packages that the values themselves are from: their helpers may change with them."""
    found = {package_of(getattr(value, "func", value)) for value in values}
    return frozenset(found - _LIBRARIES - set(sys.stdlib_module_names))


@functools.cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return str(getattr(sys.modules.get(package), "__version__", ""))


def version_around(thing: Any) -> str:
    """Name and version of an installed package whose code is not looked into."""
    package = package_of(thing)
    if package in _LIBRARIES or package in sys.stdlib_module_names:
        return f"of {package}"
    return f"of {package} {_version(package)}"


def module_of(thing: Any) -> str:
    """The name of the module of a function or class; empty if it has none."""
    name = getattr(thing, "__module__", None)
    if name is None:
        return ""
    # The class of Cython's functions, numpy's random ones among them, has a descriptor there.
    return name if isinstance(name, str) else "builtins"


def is_installed(thing: Any) -> bool:
    """Whether a function or class comes with Python or an installed package."""
    if module_of(thing).partition(".")[0] in _LIBRARIES:
        return True
    code = getattr(thing, "__code__", None)
    # The class of functions compiled by Cython has a descriptor of that name.
    if isinstance(code, types.CodeType):
        return str(code.co_filename).startswith(_library_folders())
    name = module_of(thing)
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:  # compiled into Python, or typed in by somebody
        return name in sys.builtin_module_names
    return str(file).startswith(_library_folders())


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return (*sorted(folders), "<frozen")  # code frozen into Python has no file
