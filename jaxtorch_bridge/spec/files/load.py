"""From a path, a name and version, a dict or a `CallableSpec` to a `CallableSpec`."""

from __future__ import annotations

import os
from collections.abc import Mapping

from ...errors import SpecError, SpecProblem
from ..language.wording import show
from ..model import CallableSpec
from .read_contract import from_mapping, load_file
from .registry import explain_bare_name, find_spec, is_reference


def load_spec(
    source: str | bytes | os.PathLike[str] | Mapping[str, object] | CallableSpec,
    *,
    near: str | None = None,
) -> CallableSpec:
    """The contract in ``source``: the path of a YAML file, its content as a dict, or itself.

    A string such as ``attention@2`` that is no file is a name and a version for the registry:
    the newest 2.x in the folders that ``JAXTORCH_SPECS`` or a ``pyproject.toml`` name.

    Args:
        source: What to read.
        near: A folder above which to look for ``pyproject.toml`` before the current one.

    Raises:
        SpecError: If it is not valid. Holds every problem, with file, line and column when it
            came from a file. Problems that need valid inputs to be seen (an unknown dimension
            under ``sharding``, say) show once the inputs are right.
    """
    if isinstance(source, CallableSpec):
        return source
    if isinstance(source, Mapping):
        return from_mapping(source)
    try:
        file = os.fsdecode(source)
    except TypeError:
        problem = SpecProblem("", "the path of a YAML file, a dict or a CallableSpec", show(source))
        raise SpecError("contract", (problem,)) from None
    # A file may be called like a reference, and goes first.
    if isinstance(source, str) and is_reference(source) and not os.path.exists(source):
        return find_spec(source, near=near)
    return load_file(file, hint=_hint(file))


def _hint(text: str) -> str:
    """What was probably meant by a string that is no file."""
    if "\n" in text:
        return " (this is YAML text; pass a path or a dict)"
    if not os.path.exists(text) and text.replace(".", "_").isidentifier():
        return explain_bare_name(text)
    return ""
