"""Example arrays as a person types them: ``float32[8,128]``, ``w=float32[dim=128, 64]``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ...dtypes import DTYPES
from ...spec.language.wording import did_you_mean, quote
from ..plan.request import RequestError

Path = tuple[str, ...]

_EXAMPLE = re.compile(
    r"(?:(?P<path>[A-Za-z_][\w.]*)\s*=\s*)?(?P<dtype>\w+)\s*\[(?P<sizes>[^\[\]]*)\]\s*"
)
_SIZE = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)\s*=\s*)?(?P<size>[0-9]{1,9})")


@dataclass(frozen=True)
class Example:
    """One example array.

    Attributes:
        path: Of which input, ``("params", "w")``; None: the next parameter.
        dtype: Its dtype.
        sizes: Its shape.
        names: For each dimension the name that was given to it, or None.
    """

    path: Path | None
    dtype: str
    sizes: tuple[int, ...]
    names: tuple[str | None, ...]


def read_examples(texts: Iterable[str]) -> tuple[Example, ...]:
    """The example arrays in ``texts``.

    Raises:
        RequestError: One of them is none.
    """
    return tuple(map(_read, texts))


def _read(text: str) -> Example:
    match = _EXAMPLE.fullmatch(text.strip())
    if match is None:
        expected = "an array such as float32[8,128] or x=float32[batch=8,128]"
        raise RequestError(f"--example: expected {expected}; got {quote(text)}")
    if match["dtype"] not in DTYPES:
        hint = did_you_mean(match["dtype"], DTYPES)
        raise RequestError(f"--example: expected a dtype{hint}; got {quote(match['dtype'])}")
    sizes, names = [], []
    parts = [part.strip() for part in match["sizes"].split(",")] if match["sizes"].strip() else []
    for part in parts:
        found = _SIZE.fullmatch(part)
        if found is None:
            raise RequestError(
                f"--example: expected sizes such as 8 or batch=8; got {quote(part)} in "
                f"{quote(text)}"
            )
        sizes.append(int(found["size"]))
        names.append(found["name"])
    path = None if match["path"] is None else tuple(match["path"].split("."))
    return Example(path, match["dtype"], tuple(sizes), tuple(names))
