"""Versions, and whether they are tested together."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata

from ...supported_versions import TESTED
from .checks import Check, fine, note, problem

_PACKAGES = ("jax", "jaxlib", "torch", "numpy", "pydantic")
_FLOOR = re.compile(r"(?P<name>[\w.-]+)>=(?P<floor>[\d.]+)$")


def installed() -> dict[str, str]:
    """The versions of Python and of the packages that matter; those that are missing left out."""
    found = {"python": platform.python_version()}
    for name in ("jaxtorch-bridge", *_PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def floors() -> dict[str, str]:
    """The oldest versions that this package allows, as its metadata says."""
    try:
        requirements = metadata.requires("jaxtorch-bridge") or []
    except metadata.PackageNotFoundError:  # run from a folder that was not installed
        return {}
    # Those of extras have a marker behind, so that the pattern leaves them out.
    matches = (_FLOOR.match(one) for one in requirements)
    return {match["name"]: match["floor"] for match in matches if match}


def examine_versions(found: Mapping[str, str], oldest: Mapping[str, str]) -> Iterator[Check]:
    """Compare versions with what is needed and with what is tested.

    Args:
        found: As `installed` gives them.
        oldest: As `floors` gives them.
    """
    words = ", ".join(f"{name} {version}" for name, version in found.items())
    yield fine("versions", words)
    missing = [name for name in _PACKAGES if name not in found]
    if missing:
        yield problem("versions", f"missing: {', '.join(missing)}", _install(missing))
    for name, floor in oldest.items():
        if name in found and _parts(found[name]) < _parts(floor):
            text = f"{name} {found[name]} is older than {floor}"
            yield problem("versions", text, _install([f"{name}>={floor}"]))
    if {"jax", "jaxlib"} <= found.keys() and _parts(found["jax"])[:2] != _parts(found["jaxlib"])[
        :2
    ]:
        text = f"jax {found['jax']} and jaxlib {found['jaxlib']} are of different releases"
        yield problem("versions", text, _install([f"jaxlib=={found['jax']}"]))
    if {"jax", "torch"} <= found.keys():
        yield _combination(found)


def _combination(found: Mapping[str, str]) -> Check:
    python = ".".join(found["python"].split(".")[:2])
    torch, _, build = found["torch"].partition("+")
    here = (python, found["jax"], torch)
    for one in TESTED:
        if here == (one.python, one.jax, one.torch):
            if build.startswith(("cu", "rocm")):
                return note("versions", f"{one}: tested together on the CPU, not on a GPU")
            return fine("versions", f"{one}: tested together")
    tested = "; ".join(map(str, TESTED))
    text = f"Python {python} with JAX {found['jax']} and torch {torch}: not tested together"
    remedy = f"Take a tested combination ({tested}), or run the tests here: make test"
    return problem("versions", text, remedy)


def _install(names: list[str]) -> str:
    quoted = " ".join(f'"{name}"' for name in names)
    return f"Run: python -m pip install {quoted}"


def _parts(version: str) -> tuple[int, ...]:
    # Up to four numbers, as in JAX 0.12.0.1; what stands behind a plus is the build.
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:4])
