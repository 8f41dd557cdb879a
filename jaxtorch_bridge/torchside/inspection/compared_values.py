"""Values as keys that are equal where code that reads them does the same."""

from __future__ import annotations

import array
import ctypes
import hashlib
from collections.abc import Hashable
from typing import Any

import numpy as np

from .careful_access import is_a

# The class of all of `ctypes`.
_CData = ctypes.c_int.__mro__[2]
_KINDS: tuple[type, ...] = (bool, int, float, complex, str, bytes, type(None))
_PLAINLY: dict[type, Any] = {
    int: int.__index__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: bytes.__bytes__,
}
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


def is_buffer(value: Any) -> bool:
    """Whether it is plain memory that can be written to, which only its content tells apart."""
    if is_a(value, np.ndarray):
        return not value.dtype.hasobject
    return is_a(value, (bytearray, array.array, memoryview, _CData))


def is_c_data(value: Any) -> bool:
    """Whether it is of ``ctypes``."""
    return is_a(value, _CData)


def buffer_content(buffer: Any) -> Hashable:
    """What stands in it: equal for equal content."""
    try:
        plain = np.ascontiguousarray(buffer)
        digest = hashlib.blake2b(plain.view(np.uint8).data, digest_size=16).digest()
    except Exception:  # a memory view that was released, a class that gives out no memory
        return None
    return type(buffer), plain.shape, str(plain.dtype), digest


def compared(value: Any) -> Hashable:
    """Numbers and texts by content, other objects by identity."""
    if not is_a(value, PLAIN):
        return Same(value)
    # The type keeps 1, 1.0 and True apart; the text keeps 0.0 and -0.0 apart.
    if type(value) in (float, complex):
        return type(value), repr(value)
    # Not by a subclass's own `__eq__` or `__repr__`; of long integers there is no decimal text.
    kind = next(one for one in _KINDS if is_a(value, one))
    plain = value if type(value) is kind else _PLAINLY[kind](value)
    if is_a(value, (float, complex)):
        plain = repr(plain)
    return type(value), plain
