"""Which package a function or class comes from, and whether its code is somebody else's."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import site
import sys
import sysconfig
import types
from collections.abc import Iterable
from functools import partial
from typing import Any

from .careful_access import attribute, is_a, own_attributes

# Packages whose code stays what it is as long as their version does.
_LIBRARIES = frozenset({"torch", "jax", "jaxlib", "numpy", "jaxtorch_bridge", "jaxtyping"})


def package_of(thing: Any) -> str:
    """The top-level package of a function, class or object; empty if that is not known."""
    name = attribute(thing, "__module__") or attribute(type(thing), "__module__", "")
    return str(name).partition(".")[0]


def own_packages(values: Iterable[Any]) -> frozenset[str]:
    """The packages that the values themselves are from: their helpers may change with them.

    Without those that were installed with digests of their files, which say as much.
    """
    found = {package_of(value.func if is_a(value, partial) else value) for value in values}
    found -= _LIBRARIES | set(sys.stdlib_module_names)
    return frozenset(package for package in found if not _recorded_code(package))


@functools.cache
def _distribution(package: str) -> importlib.metadata.Distribution | None:
    try:
        return importlib.metadata.distribution(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        pass
    # It may have been published under another name. Python's own way to find that out parses the
    # name of each file of all that is installed, which takes most of a second.
    if package in sys.modules and not _is_among_libraries(sys.modules[package]):
        return None
    for found in importlib.metadata.distributions():
        named = (found.read_text("top_level.txt") or "").split()
        files = f"\n{found.read_text('RECORD') or ''}"
        if package in named or f"\n{package}/" in files or f"\n{package}.py," in files:
            return found
    return None


def _is_among_libraries(module: types.ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    # Of a package without an `__init__.py` only the folders are known.
    places = [file] if file else list(getattr(module, "__path__", ()))
    return any(str(place).startswith(_library_folders()) for place in places)


@functools.cache
def _version(package: str) -> str:
    found = _distribution(package)
    if found is None:
        return str(getattr(sys.modules.get(package), "__version__", ""))
    return found.version


@functools.cache
def _recorded_code(package: str) -> str:
    """A digest over the Python files of an installed package, as its installer wrote them down.

    Empty where that is not known: https://packaging.python.org/specifications/recording-installed-packages
    """
    found = _distribution(package)
    record = None if found is None else found.read_text("RECORD")
    # A line has the file, its digest and its size. Editable ones list none of the code.
    files = [line for line in (record or "").splitlines() if ".py,sha256=" in line]
    if not any(line.startswith((f"{package}/", f"{package}.py,")) for line in files):
        return ""
    return hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()[:16]


def version_around(thing: Any) -> str:
    """Name, version and recorded code of an installed package whose code is not looked into."""
    package = package_of(thing)
    if package in _LIBRARIES or package in sys.stdlib_module_names:
        return f"of {package}"
    return f"of {package} {_version(package)} {_recorded_code(package)}"


def module_of(thing: Any) -> str:
    """The name of the module of a function or class; empty if it has none."""
    name = attribute(thing, "__module__")
    if name is None:
        return ""
    # The class of Cython's functions, numpy's random ones among them, has a descriptor there.
    return name if isinstance(name, str) else "builtins"


def is_installed(thing: Any) -> bool:
    """Whether a function or class comes with Python or an installed package."""
    if module_of(thing).partition(".")[0] in _LIBRARIES:
        return True
    code = attribute(thing, "__code__")
    # The class of functions compiled by Cython has a descriptor of that name.
    if is_a(code, types.CodeType):
        return str(code.co_filename).startswith(_library_folders())
    return is_installed_module(module_of(thing))


def is_installed_module(name: str) -> bool:
    """Whether a Python module comes with Python or an installed package."""
    if name.partition(".")[0] in _LIBRARIES:
        return True
    # Not by a module's own `__getattr__`.
    file = (own_attributes(sys.modules.get(name)) or {}).get("__file__")
    if file is None:  # compiled into Python, or typed in by somebody
        return name in sys.builtin_module_names
    return str(file).startswith(_library_folders())


@functools.cache
def _library_folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders |= {*site.getsitepackages(), site.getusersitepackages()}
    return (*sorted(folders), "<frozen")  # code frozen into Python has no file
