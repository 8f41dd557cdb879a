"""Contracts by name: `attention@2` is the newest 2.x among the files of a search path."""

from __future__ import annotations

import os
import re

from ...errors import SpecError, SpecProblem
from ..language.versions import Version, parse_version
from ..language.wording import did_you_mean, listed, quote
from ..model import CallableSpec
from .contract_files import contract_files, label_in
from .read_contract import load_file
from .search_path import SearchPath, find_search_path

_REFERENCE = re.compile(r"([\w.]+)@([0-9]{1,9}(?:\.[0-9]{1,9}){0,2})")


def is_reference(text: str) -> bool:
    """Whether ``text`` has the form ``name@version``, the version with one to three numbers."""
    return _REFERENCE.fullmatch(text) is not None


def find_spec(
    reference: str, folders: tuple[str, ...] | None = None, near: str | None = None
) -> CallableSpec:
    """The newest contract that ``reference`` allows, such as ``attention@2`` or ``attention@2.1``.

    Args:
        reference: A name and one to three numbers of the version; three are exact.
        folders: Where to look; default: what `find_search_path` finds from ``near``.
        near: A folder to start from, such as that of the calling module.

    Raises:
        SpecError: If there is none, if the file is not valid, or if two files hold the same
            version with different content.
    """
    search = find_search_path(near) if folders is None else SearchPath(folders, "the argument")
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise _not_found(reference, "a name with a version, such as `attention@2`", "")
    name, wanted = match[1], tuple(int(part) for part in match[2].split("."))
    known = files_by_label(search.folders)
    versions = {label[1]: files for label, files in known.items() if label[0] == name}
    fitting = [one for one in versions if one[: len(wanted)] == wanted]
    if not fitting:
        raise _unknown(reference, name, known, search)
    return _only(reference, versions[max(fitting)])


def find_newest(name: str, search: SearchPath) -> CallableSpec:
    """The newest contract of that name on a search path.

    Raises:
        SpecError: As `find_spec` does.
    """
    known = files_by_label(search.folders)
    versions = [version for other, version in known if other == name]
    if not versions:
        raise _unknown(name, name, known, search)
    return _only(name, known[name, max(versions)])


def files_by_label(folders: tuple[str, ...]) -> dict[tuple[str, Version], list[str]]:
    """Name and version -> the files below ``folders`` that hold it; invalid files are left out."""
    known: dict[tuple[str, Version], list[str]] = {}
    # Once, though folders of the path may lie in each other.
    for path in dict.fromkeys(os.path.normpath(one) for one in contract_files(folders)):
        label = label_in(path)
        # The quick look at a file does not check what stands there.
        if label is not None and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){2}", label[1]):
            known.setdefault((label[0], parse_version(label[1])), []).append(path)
    return known


def explain_bare_name(text: str) -> str:
    """Advice for a string that is no file but names a contract, or nothing."""
    try:
        search = find_search_path()
        known = files_by_label(search.folders)
    except SpecError:
        return ""
    versions = [version for name, version in known if name == text]
    if not versions:
        return ""
    return (
        f"; there is a contract of that name: write {quote(f'{text}@{max(versions)[0]}')} for its "
        f"newest {max(versions)[0]}.x, or the path of a file"
    )


def _only(reference: str, files: list[str]) -> CallableSpec:
    first, *others = files
    spec = load_file(first)
    # Copies are fine as long as they say the same.
    for other in others:
        if load_file(other) != spec:
            expected = f"one content for {spec.label}"
            problem = SpecProblem("", expected, f"another in `{other}`", first)
            raise SpecError(reference, (problem,))
    return spec


def _unknown(
    reference: str, name: str, known: dict[tuple[str, Version], list[str]], search: SearchPath
) -> SpecError:
    mine = sorted(version for other, version in known if other == name)
    if mine:
        versions = listed(".".join(str(part) for part in version) for version in mine)
        return _not_found(
            reference, f"one of the versions {versions} of {quote(name)}", str(search)
        )
    names = sorted({other for other, _ in known})
    if search.said_by is None:
        expected = (
            "a search path: `specs = [...]` under [tool.jaxtorch] in pyproject.toml, or the "
            "variable JAXTORCH_SPECS"
        )
        return _not_found(reference, expected, "")
    return _not_found(reference, f"one of {listed(names)}{did_you_mean(name, names)}", str(search))


def _not_found(reference: str, expected: str, where: str) -> SpecError:
    found = f"{quote(reference)}{', looked for in ' + where if where else ''}"
    return SpecError(reference, (SpecProblem("", expected, found),))
