"""From contract files to the versions of each contract."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ...errors import SpecError, SpecProblem
from ...spec.files.contract_files import contract_files
from ...spec.files.read_contract import load_file, read_spec
from ...spec.files.yaml_document import MOST_BYTES
from ...spec.language.versions import Version, parse_version
from ...spec.language.wording import escaped
from ...spec.model import CallableSpec

Versions = tuple[CallableSpec, ...]


def collect(paths: Iterable[str]) -> dict[str, Versions]:
    """The contracts below ``paths`` by name, sorted; their versions from the oldest on.

    Places in them are told from the folder that was named, so that they are the same on every
    machine.

    Raises:
        SpecError: A contract is not valid, or a version has two contents. Holds all problems.
    """
    problems: list[SpecProblem] = []
    found: dict[str, dict[Version, CallableSpec]] = {}
    for file, shown in _once(paths):
        try:
            spec = _load(file, shown)
        except SpecError as error:
            problems += error.problems
            continue
        versions = found.setdefault(spec.name, {})
        other = versions.setdefault(parse_version(spec.version), spec)
        if other != spec:
            expected = f"one content for {spec.label}; {other.where('version')} has it too"
            problems.append(SpecProblem("version", expected, f"another in `{file}`"))
    if problems:
        raise SpecError("catalog", tuple(problems))
    return {
        name: tuple(found[name][version] for version in sorted(found[name]))
        for name in sorted(found)
    }


def _once(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each file below ``paths`` and what to call it, sorted by that."""
    files: dict[str, tuple[str, str]] = {}
    for path in paths:
        # The folder's own name tells more than the way to it, which differs between machines.
        above = os.path.dirname(os.path.abspath(path))
        for file in contract_files([path]):
            shown = os.path.relpath(os.path.abspath(file), above).replace(os.sep, "/")
            # Each file once, though it may be named along with its folder.
            files.setdefault(os.path.realpath(file), (file, escaped(shown)))
    yield from sorted(files.values(), key=lambda one: (one[1], one[0]))


def _load(file: str, shown: str) -> CallableSpec:
    try:
        with open(file, "rb") as stream:
            return read_spec(stream.read(MOST_BYTES + 1), shown)
    except (OSError, SpecError):
        # Once more, for problems that carry the whole way to the file.
        return load_file(file)
