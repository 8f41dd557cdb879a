"""The words of messages: how a value is shown, and which name was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_LONGEST = 60
_LONGEST_REMARK = 200
_MOST_CANDIDATES = 200


def show(value: object) -> str:
    """What ``value`` is, in the words of YAML, shortened to a line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a boolean)"
    if isinstance(value, int):
        # Python refuses to print integers of thousands of digits.
        return f"{value} (an integer)" if value.bit_length() <= 256 else "a huge integer"
    if isinstance(value, float):
        return f"{value!r} (a number)"
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return f"an object of type {type(value).__name__}"


def quote(text: str) -> str:
    """``text`` in backticks, shortened, with anything unprintable escaped."""
    short = text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
    return f"`{escaped(short)}`"


def escaped(text: str) -> str:
    """``text`` as it is, or with escapes if something in it cannot be printed."""
    return text if text.isprintable() else repr(text)[1:-1]


def one_line(remark: str) -> str:
    """A remark in the middle of a message: shortened, without line ends and a last full stop."""
    text = escaped(" ".join(remark.split())).rstrip(".")
    return text if len(text) <= _LONGEST_REMARK else f"{text[: _LONGEST_REMARK - 3]}..."


def listed(names: Iterable[str]) -> str:
    """The names in backticks with commas between, at most sixteen; ``none`` for none."""
    all_names = list(names)
    shown = ", ".join(quote(name) for name in all_names[:16])
    rest = len(all_names) - 16
    return (f"{shown} and {rest} more" if rest > 0 else shown) or "none"


def did_you_mean(word: object, candidates: Iterable[str]) -> str:
    """``" (did you mean `x`?)"`` with the closest candidate, or nothing."""
    names = list(candidates)
    # Comparing is slow; among hundreds of names nobody would miss the hint.
    if not isinstance(word, str) or len(word) > _LONGEST or len(names) > _MOST_CANDIDATES:
        return ""
    import difflib  # only needed once something is wrong

    close = difflib.get_close_matches(word, names, n=1)
    return f" (did you mean {quote(close[0])}?)" if close else ""
