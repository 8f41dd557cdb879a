"""Which contracts the arguments of a subcommand mean."""

from __future__ import annotations

import os

from .output import stop


def default_paths() -> list[str]:
    """The folders of the search path, or ``specs`` if there is none."""
    from ...spec.files.search_path import find_search_path

    search = find_search_path()
    if search.folders:
        return list(search.folders)
    if not os.path.isdir("specs"):
        stop(
            "no paths were given, and there is neither a folder `specs` here nor a search path "
            "(`specs = [...]` under [tool.jaxtorch] in pyproject.toml)."
        )
    return ["specs"]


def existing(paths: list[str]) -> list[str]:
    """``paths``, all of which exist; or exit with 2."""
    for path in paths:
        if not os.path.exists(path):
            stop(f"`{path}` does not exist.")
    return paths
