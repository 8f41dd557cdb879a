"""Where contracts are looked for by name."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass

from ...errors import SpecError, SpecProblem
from ..language.wording import did_you_mean, quote
from ..source_positions import Position
from .yaml_document import DocumentError, decode_text

VARIABLE = "JAXTORCH_SPECS"
_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)")


@dataclass(frozen=True)
class SearchPath:
    """Folders with contracts.

    Attributes:
        folders: In the order they are searched.
        said_by: What named them, for messages; None if nothing did.
    """

    folders: tuple[str, ...] = ()
    said_by: str | None = None

    def __str__(self) -> str:
        folders = ", ".join(f"`{folder}`" for folder in self.folders)
        return f"{folders or 'no folder'} (from {self.said_by})" if self.said_by else "no folder"


def find_search_path(*near: str | None) -> SearchPath:
    """The folders that the environment or a project names.

    The variable ``JAXTORCH_SPECS`` wins (folders with the system's path separator between).
    Else the nearest ``pyproject.toml`` with a table ``[tool.jaxtorch]`` counts, above the first
    folder of ``near`` that has one, and last above the current folder.

    Raises:
        SpecError: If that table cannot be read, has another field than ``specs``, or that is no
            list of folders that exist.
    """
    variable = os.environ.get(VARIABLE)
    # Set but empty counts as not set.
    if variable:
        folders = tuple(part for part in variable.split(os.pathsep) if part)
        return _checked(folders, f"the variable {VARIABLE}")
    # A function's own project before the current one: so it is found from any folder.
    for start in (*near, os.getcwd()):
        for file in _projects_above(start) if start else ():
            table = _table_in(file)
            if table is not None:
                return _from_table(table, file)
    return SearchPath()


def _projects_above(start: str) -> Iterator[str]:
    folder = os.path.abspath(start)
    while True:
        file = os.path.join(folder, "pyproject.toml")
        if os.path.isfile(file):
            yield file
        parent = os.path.dirname(folder)
        if parent == folder:
            return
        folder = parent


def _table_in(file: str) -> dict[str, object] | None:
    try:
        with open(file, "rb") as stream:
            # Decoded here: tomllib itself does not say where a file stops being UTF-8.
            data = tomllib.loads(decode_text(stream.read()))
    except OSError as error:
        raise _wrong(file, "a readable TOML file", error.strerror or str(error)) from None
    except DocumentError as error:
        raise _wrong(file, error.expected, error.found, error.position) from None
    except ValueError as error:
        # Where tomllib says it in words; at the end of the file it says just that.
        match = _PLACE.search(str(error))
        place = (int(match[1]), int(match[2])) if match else None
        raise _wrong(file, "a readable TOML file", _PLACE.sub("", str(error)), place) from None
    tool = data.get("tool")
    table = tool.get("jaxtorch") if isinstance(tool, dict) else None
    if table is not None and not isinstance(table, dict):
        raise _wrong(file, "[tool.jaxtorch] as a table", repr(table))
    return table


def _from_table(table: dict[str, object], file: str) -> SearchPath:
    for key in table:
        if key != "specs":
            expected = f"only `specs` under [tool.jaxtorch]{did_you_mean(key, ['specs'])}"
            raise _wrong(file, expected, quote(key))
    # An empty table is enough to say that there are contracts in `specs`.
    value = table.get("specs", ["specs"])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        expected = '`specs` under [tool.jaxtorch] as a list of folders, such as ["specs"]'
        raise _wrong(file, expected, repr(value))
    folders = tuple(_shortest(os.path.join(os.path.dirname(file), one)) for one in value)
    return _checked(folders, f"[tool.jaxtorch] in {_shortest(file)}")


def _checked(folders: tuple[str, ...], said_by: str) -> SearchPath:
    for folder in folders:
        if not os.path.isdir(folder):
            raise _wrong(folder, f"a folder with contracts, as {said_by} says", "no such folder")
    return SearchPath(folders, said_by)


def _shortest(path: str) -> str:
    """``path`` as a person in the current folder would write it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _wrong(file: str, expected: str, found: str, place: Position | None = None) -> SpecError:
    return SpecError(file, (SpecProblem("", expected, found, file, *(place or (None, None))),))
