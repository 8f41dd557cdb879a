"""Values as keys that are equal where code that reads them does the same."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from .careful_access import is_a

PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Same:
    """An object by its identity, kept alive so that no other can take its place unnoticed."""

    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.held is other.held

    def __hash__(self) -> int:
        return id(self.held)


def compared(value: Any) -> Hashable:
    """Numbers and texts by content, other objects by identity."""
    # The type keeps 1, 1.0 and True apart; the text keeps 0.0 and -0.0 apart.
    return (type(value), repr(value)) if is_a(value, PLAIN) else Same(value)
