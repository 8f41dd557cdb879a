"""Text from contracts as parts of Python source that no content can break."""

from __future__ import annotations

import math
from collections.abc import Iterable

INDENT = "    "


def indented(lines: Iterable[str], depth: int = 1) -> list[str]:
    """The lines, further to the right where they are not empty."""
    return [INDENT * depth + line if line else "" for line in lines]


def docstring(text: str) -> list[str]:
    """The lines of a docstring that reads as ``text``."""
    lines = [_inside_quotes(line.rstrip()) for line in text.strip().splitlines()]
    if len(lines) == 1:
        return [f'"""{lines[0]}"""']
    return [f'"""{lines[0]}', *lines[1:], '"""']


def _inside_quotes(line: str) -> str:
    escaped = "".join(_character(one) for one in line)
    # Every quote, so that neither three in a row nor one at the end closes the docstring.
    return (
        escaped.replace('"""', r"\"\"\"")
        if not escaped.endswith('"')
        else (escaped.replace('"', r"\""))
    )


def _character(one: str) -> str:
    if one == "\\":
        return r"\\"
    return one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode()


def literal(value: object) -> str:
    """``value`` as a default in a stub; ``...`` for numbers that Python has no literal for."""
    parts = value if isinstance(value, tuple) else (value,)
    if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
        return "..."
    return repr(value)
