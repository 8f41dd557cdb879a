"""The arguments of a contract that are no arrays: their types, defaults and choices.

``causal: false`` gives a default, and with it a type: that of the default, where it has one. The
long form is a mapping: ``dim: {type: int|null, default: -1, doc: Which axis.}``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, StrictStr, ValidationError, model_validator

from .frozen_mapping import FrozenDict
from .identifiers import is_identifier
from .parsed_field import ReadBy
from .problems import Fault, Path, fault, faults_of, raise_faults
from .wording import did_you_mean, listed, quote, show

Scalar: TypeAlias = bool | int | float | str | None
Value: TypeAlias = Scalar | tuple[Scalar, ...]

_KINDS = ("bool", "int", "float", "str")
_LIST = re.compile(r"list\[\s*(\w+)\s*\]")
_TYPE_WORDS = "a type: `bool`, `int`, `float`, `str`, `list[int]`, or several such as `int|null`"
_PLAIN = "true, false, a number, a string, null or a list of these"


# An enum's member stays itself when copied or pickled, so that `is MISSING` holds.
class _Missing(Enum):
    MISSING = "no default"


MISSING = _Missing.MISSING


@dataclass(frozen=True)
class StaticType:
    """What a static argument may be.

    Attributes:
        names: Of ``bool``, ``int``, ``float``, ``str``, ``null`` and ``list[...]`` of one of the
            first four.
    """

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "|".join(self.names)

    def to_data(self) -> str | list[str]:
        """The type as a contract writes it."""
        return self.names[0] if len(self.names) == 1 else list(self.names)

    def accepts(self, value: object) -> bool:
        """Whether a call may pass ``value``. An int is a float, too, but a bool is no number."""
        return any(_is(value, name) for name in self.names)

    def covers(self, other: StaticType) -> bool:
        """Whether it accepts all that ``other`` does."""
        wider = {"int": "float", "list[int]": "list[float]"}
        return all(one in self.names or wider.get(one) in self.names for one in other.names)


class StaticSpec(BaseModel):
    """One static argument: a default that also tells the type, or a mapping with these fields.

    Attributes:
        type: What may be passed; None: anything.
        default: The function's own default; absent: a call must pass it.
        choices: The only values that may be passed; empty: all of the type.
        doc: A remark for readers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Lambdas, since the readers stand further down.
    type: Annotated[StaticType | None, ReadBy(lambda value: _read_type(value))] = None
    default: Annotated[Any, ReadBy(lambda value: _read_value(value))] = MISSING
    choices: Annotated[tuple[Value, ...], ReadBy(lambda value: _read_choices(value))] = ()
    doc: StrictStr | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_default(cls, data: Any) -> Any:
        if isinstance(data, (Mapping, StaticSpec)):
            return data
        return {"type": type_told_by(data), "default": data}

    @model_validator(mode="after")
    def _values_fit(self) -> StaticSpec:
        raise_faults(self._misfits())
        return self

    def _misfits(self) -> list[Fault]:
        faults = []
        for index, choice in enumerate(self.choices):
            if self.type is not None and not self.type.accepts(choice):
                faults.append(Fault(str(self.type), show(choice), ("choices", str(index))))
        if self.required:
            return faults
        if self.type is not None and not self.type.accepts(self.default):
            faults.append(Fault(str(self.type), show(self.default), ("default",)))
        elif self.choices and not self._is_choice(self.default):
            expected = f"one of the choices {self.choices_text}"
            faults.append(Fault(expected, show(self.default), ("default",)))
        return faults

    @property
    def required(self) -> bool:
        """Whether a call must pass it."""
        return self.default is MISSING

    def has_default(self, value: object) -> bool:
        """Whether ``value``, the function's own default, is the contract's."""
        wanted = tuple(value) if isinstance(value, list) else value
        if self.type is not None:
            return self.type.accepts(wanted) and same_value(wanted, self.default)
        # Without a type 1, 1.0 and true are not the same.
        return repr(wanted) == repr(self.default)

    @property
    def choices_text(self) -> str:
        """The choices, for messages."""
        return listed(_text(one) for one in self.choices)

    def problem_with(self, value: object) -> str | None:
        """What was expected instead of ``value``; None if a call may pass it."""
        if self.type is not None and not self.type.accepts(value):
            return f"a value of type `{self.type}`"
        if self.choices and not self._is_choice(value):
            return f"one of {self.choices_text}{did_you_mean(value, map(str, self.choices))}"
        return None

    def _is_choice(self, value: object) -> bool:
        return any(same_value(value, choice) for choice in self.choices)

    def to_data(self, *, docs: bool = True) -> Any:
        """The argument as a contract writes it: the default alone if that says all."""
        if (
            not self.required
            and not self.choices
            and not (docs and self.doc is not None)
            and self.type == type_told_by(self.default)
        ):
            return _plain(self.default)
        data: dict[str, Any] = {}
        if self.type is not None:
            data["type"] = self.type.to_data()
        if not self.required:
            data["default"] = _plain(self.default)
        if self.choices:
            data["choices"] = [_plain(one) for one in self.choices]
        if docs and self.doc is not None:
            data["doc"] = self.doc
        return data


def type_told_by(default: object) -> StaticType | None:
    """The type that the short form means; None, anything, for null and lists of no one kind."""
    if not isinstance(default, (list, tuple)):
        name = _kind_of(default)
        return None if name is None else StaticType((name,))
    kinds = {_kind_of(one) for one in default}
    # `[1, 2.5]` is a list of floats, as an int is a float.
    if kinds == {"int", "float"}:
        kinds = {"float"}
    name = kinds.pop() if len(kinds) == 1 else None
    return None if name is None else StaticType((f"list[{name}]",))


def _kind_of(value: object) -> str | None:
    # By the exact type: a bool is an int, too.
    return next((name for name in _KINDS if type(value).__name__ == name), None)


def read_statics(value: object) -> FrozenDict[str, StaticSpec]:
    """The static arguments under ``static``.

    Raises:
        ValidationError: With everything that is wrong below ``value``.
    """
    if not isinstance(value, Mapping):
        raise fault("a mapping", show(value))
    faults: list[Fault] = []
    found = {}
    for key, child in value.items():
        if not is_identifier(key):
            faults.append(Fault("an identifier as name", show(key), (str(key),), at_key=True))
            continue
        try:
            found[key] = StaticSpec.model_validate(child)
        except ValidationError as error:
            faults += _faults(error, key, child)
    raise_faults(faults)
    return FrozenDict(found)


def _faults(error: ValidationError, key: str, child: object) -> list[Fault]:
    found = faults_of(error, lambda _: StaticSpec.model_fields)
    if isinstance(child, Mapping):
        return [one.below(key) for one in found]
    # The short form has no field `default` of its own.
    return [Fault(one.expected, one.found, _without_default(one.path)).below(key) for one in found]


def _without_default(path: Path) -> Path:
    return path[1:] if path[:1] == ("default",) else path


def same_value(left: object, right: object) -> bool:
    """Whether both are the same choice: 1 is 1.0, but not true; a list is a tuple."""
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same_value, left, right))
    # By identity, since True equals 1.
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        # A NaN is no other choice than a NaN.
        return left == right or (left != left and right != right)
    return type(left) is type(right) and left == right


def _is(value: object, name: str) -> bool:
    match = _LIST.fullmatch(name)
    if match is not None:
        return isinstance(value, (list, tuple)) and all(_is(one, match[1]) for one in value)
    if name == "null":
        return value is None
    # Before the numbers: to `isinstance` a bool is an int.
    if isinstance(value, bool) or name == "bool":
        return isinstance(value, bool) and name == "bool"
    kinds = {"int": int, "float": (int, float), "str": str}
    return isinstance(value, kinds[name])  # type: ignore[arg-type]


def _read_type(value: object) -> StaticType | None:
    if value is None or isinstance(value, StaticType):
        return value
    parts = value.split("|") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not parts:
        raise fault(_TYPE_WORDS, show(value))
    names: list[str] = []
    for part in parts:
        # YAML reads null as a value.
        name = "null" if part is None else part.strip() if isinstance(part, str) else ""
        match = _LIST.fullmatch(name)
        known = match[1] in _KINDS if match else name in (*_KINDS, "null")
        if not known:
            raise fault(_TYPE_WORDS + did_you_mean(name, (*_KINDS, "null")), show(part))
        name = f"list[{match[1]}]" if match else name
        if name in names:
            raise fault("each type once", f"{quote(name)} again")
        names.append(name)
    return StaticType(tuple(names))


def _read_value(value: object) -> Value:
    if isinstance(value, (list, tuple)):
        if all(isinstance(one, Scalar) for one in value):
            return tuple(value)
    elif isinstance(value, Scalar):
        return value
    raise fault(f"a default: {_PLAIN}", show(value))


def _read_choices(value: object) -> tuple[Value, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise fault("a list of the values that may be passed", show(value))
    faults = []
    found: list[Value] = []
    for index, one in enumerate(value):
        if not isinstance(one, (Scalar, list, tuple)):
            faults.append(Fault(_PLAIN, show(one), (str(index),)))
            continue
        choice = _read_value(one)
        if any(same_value(choice, other) for other in found):
            faults.append(Fault("each choice once", f"{show(one)} again", (str(index),)))
        found.append(choice)
    raise_faults(faults)
    return tuple(found)


def _plain(value: Value) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: Value) -> str:
    return str(_plain(value)).lower() if isinstance(value, bool) else str(_plain(value))
