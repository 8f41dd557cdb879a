"""Problems on their way from a validator to the reader: what was expected, what stands there.

Validators raise them through pydantic, which adds the path; `faults_of` takes them out again
and words pydantic's own errors in the same two parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from ...choices import renamed
from .wording import did_you_mean, listed, quote, show

Path = tuple[str, ...]

_TYPE = "contract"
# Nobody reads more at once, and each may cost a search for the name that was meant.
_MOST_FAULTS = 200
_TYPE_WORDS = {
    "string_type": "a string",
    "string_unicode": "a string of valid Unicode",
    "int_type": "an integer",
    "bool_type": "true or false",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
}


@dataclass(frozen=True)
class Fault:
    """One problem below the value that is being validated.

    Attributes:
        expected: What would have been right.
        found: What stands there instead.
        path: Where, counted from the value being validated.
        at_key: Whether the name is at fault, not what it stands for.
    """

    expected: str
    found: str
    path: Path = ()
    at_key: bool = False

    def below(self, *parents: str) -> Fault:
        """The same problem, seen from further up."""
        return Fault(self.expected, self.found, (*parents, *self.path), self.at_key)


def fault(expected: str, found: str, *, at_key: bool = False) -> PydanticCustomError:
    """An exception for a validator to raise about the value it was given."""
    context = {"expected": expected, "found": found, "at_key": at_key}
    return PydanticCustomError(_TYPE, "expected {expected}; got {found}", context)


def raise_faults(faults: Iterable[Fault]) -> None:
    """Raise ``faults``, at most 200, from within a validator; do nothing if there are none.

    Raises:
        ValidationError: One error a fault; pydantic merges them into those of the whole model.
    """
    details = [
        InitErrorDetails(
            type=fault(one.expected, one.found, at_key=one.at_key), loc=one.path, input=None
        )
        # Those beyond are never made, where `faults` is a generator.
        for one in islice(faults, _MOST_FAULTS)
    ]
    if details:
        raise ValidationError.from_exception_data(_TYPE, details)


def faults_of(
    error: ValidationError, fields_at: Callable[[Path], Iterable[str]]
) -> tuple[Fault, ...]:
    """The problems that ``error`` holds; ``fields_at`` gives the known fields of a mapping."""
    return tuple(_fault_of(one, fields_at) for one in error.errors(include_url=False))


def _fault_of(error: ErrorDetails, fields_at: Callable[[Path], Iterable[str]]) -> Fault:
    # pydantic's mark of a key at fault, which is no part of the contract's path.
    path = tuple(str(part) for part in error["loc"] if part != "[key]")
    context: dict[str, Any] = error.get("ctx", {})
    kind, value = error["type"], error["input"]
    if kind == _TYPE:
        return Fault(context["expected"], context["found"], path, context["at_key"])
    if kind == "missing":
        return Fault(f"a field `{path[-1]}`", "nothing", path)
    if kind == "extra_forbidden":
        fields = tuple(fields_at(path[:-1]))
        expected = f"one of the fields {listed(fields)}{did_you_mean(path[-1], fields)}"
        return Fault(expected, f"the unknown field {quote(path[-1])}", path, at_key=True)
    if kind == "invalid_key":
        return Fault("a string as field name", show(value), path, at_key=True)
    if kind == "literal_error":
        # pydantic has them as one text: 'a', 'b' or 'c'.
        choices = re.findall(r"'([^']*)'", context["expected"])
        one_of = f"one of {listed(choices)}" if len(choices) > 1 else listed(choices)
        hint = did_you_mean(value, choices) if len(choices) > 1 else ""
        gone = renamed(".".join(path), value)
        advice = f"{gone}; `jaxtorch migrate` rewrites it" if gone else ""
        return Fault(one_of + hint, show(value) + advice, path)
    if kind == "greater_than_equal":
        return Fault(f"a number of at least {context['ge']}", show(value), path)
    if kind in _TYPE_WORDS:
        return Fault(_TYPE_WORDS[kind], show(value), path)
    if kind in ("value_error", "assertion_error"):
        return Fault(str(context["error"]), show(value), path)
    return Fault("a valid value", show(value), path)
