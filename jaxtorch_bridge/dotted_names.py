"""Names of arguments and of their parts, as `mutates` and `copies` have them: ``state.mean``."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ITEM = re.compile(r"\[(?:'([^']*)'|(\d+))\]")


def dotted(path: str) -> str:
    """The name of what messages call ``state['mean']`` or ``args[0]``."""
    return _ITEM.sub(r".\1\2", path)


def is_part(name: str, whole: str) -> bool:
    """Whether one is the other, or a part of it."""
    return name == whole or name.startswith(f"{whole}.")


def in_both(some: Iterable[str], others: Iterable[str]) -> list[str]:
    """The names of ``some`` that have a part in common with one of ``others``."""
    others = tuple(map(dotted, others))
    return [
        name
        for name in some
        if any(is_part(dotted(name), other) or is_part(other, dotted(name)) for other in others)
    ]
