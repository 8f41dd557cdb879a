"""Contract files below folders, and the name and version that stand in each."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator

from ...errors import SpecError, SpecProblem
from .read_contract import load_file
from .yaml_document import MOST_BYTES

SUFFIXES = (".yaml", ".yml")

# Inside a block mapping nothing else can begin in the first column, so that this is the field
# itself; a file written in another way, or that has one twice, is read as a whole.
_FIELD = re.compile(
    rb"^(name|version)[ \t]*:[ \t]+([\"']?)([\w.]+)\2[ \t]*(?:#.*)?\r?$", re.MULTILINE
)


def contract_files(paths: Iterable[str]) -> Iterator[str]:
    """The files among ``paths`` and all YAML files below the folders among them, sorted.

    Raises:
        SpecError: If one of ``paths`` does not exist.
    """
    for path in paths:
        if os.path.isdir(path):
            yield from _below(path)
        elif os.path.exists(path):
            yield path
        else:
            problem = SpecProblem("", "a contract file or a folder of them", "nothing", path)
            raise SpecError(path, (problem,))


def _below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        # Hidden folders hold environments and caches, not contracts of this codebase.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(parent, name)
            # A pipe that stands there would be waited for. What is broken is said when it is read.
            if name.endswith(SUFFIXES) and not name.startswith(".") and not _is_special(path):
                yield path


def _is_special(path: str) -> bool:
    return os.path.exists(path) and not os.path.isfile(path)


def label_in(path: str) -> tuple[str, str] | None:
    """Name and version of the contract in ``path``; None if the file is not valid."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return _label_in(path, stat.st_mtime_ns, stat.st_size)


# By time and size, which change when somebody writes to the file.
@functools.lru_cache(maxsize=4096)
def _label_in(path: str, changed_ns: int, size_bytes: int) -> tuple[str, str] | None:
    try:
        with open(path, "rb") as stream:
            found = _FIELD.findall(stream.read(MOST_BYTES))
    except OSError:
        return None
    fields = {key.decode(): value.decode("utf-8", "replace") for key, _, value in found}
    if len(found) == len(fields) == 2:
        return fields["name"], fields["version"]
    try:
        spec = load_file(path)
    except SpecError:
        return None
    return spec.name, spec.version
