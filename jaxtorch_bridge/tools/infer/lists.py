"""Trees of names where some names are positions in a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .examples import Path


def as_lists(tree: dict[str, Any]) -> dict[str, Any]:
    """``tree`` with lists where all names below the first are numbers."""

    def converted(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        if node and all(key.isdecimal() for key in node):
            return [converted(node[key]) for key in sorted(node, key=int)]
        return {key: converted(child) for key, child in node.items()}

    return {key: converted(child) for key, child in tree.items()}


def gap_in(paths: Iterable[Path]) -> Path | None:
    """A place that lists must have so that positions count from 0, and that no path goes to."""
    below: dict[Path, set[str]] = {}
    for path in paths:
        for depth in range(1, len(path)):
            below.setdefault(path[:depth], set()).add(path[depth])
    for parent, names in below.items():
        if any(name.isdecimal() for name in names):
            wanted = [str(index) for index in range(len(names))]
            missing = [name for name in wanted if name not in names]
            if missing:
                return (*parent, missing[0])
    return None
