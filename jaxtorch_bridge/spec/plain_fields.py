"""How the plain fields of a contract are read, each by one function."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .language.constraints import Constraint, parse_constraint
from .language.frozen_mapping import FrozenDict
from .language.identifiers import is_dotted_name, is_identifier
from .language.problems import Fault, Path, fault, raise_faults
from .language.shapes import ShapeSyntaxError
from .language.wording import did_you_mean, listed, show

# No leading zeros: one version must have one text.
_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){2}")


def read_name(name: str) -> str:
    """A name, dots allowed."""
    if not is_dotted_name(name):
        raise fault("a name such as `attention` or `mylib.attention`", show(name))
    return name


def read_version(value: object) -> str:
    """A version of three numbers."""
    # YAML reads `1` and `1.0` as numbers, and 1.10 would even become 1.1.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise fault('three numbers in quotes, such as "1.0.0"', show(value))
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise fault("a version of three numbers, such as `1.0.0`", show(value))
    return value


def read_function(target: str) -> str:
    """Where a function stands; nothing is imported."""
    module, colon, qualname = target.partition(":")
    if not (colon and is_dotted_name(module) and is_dotted_name(qualname)):
        raise fault("`module:function`, such as `mylib.ops:attention`", show(target))
    return target


def read_sharding(value: object) -> FrozenDict[str, str]:
    """Dimension names with their mesh axes."""
    expected = "the name of a mesh axis"
    return _read_mapping(value, expected, lambda one: isinstance(one, str) and one != "")


def _read_mapping(
    value: object, expected: str, accepts: Callable[[object], bool]
) -> FrozenDict[str, Any]:
    if not isinstance(value, Mapping):
        raise fault("a mapping", show(value))
    faults = []
    for key, child in value.items():
        if not is_identifier(key):
            faults.append(Fault("an identifier as name", show(key), (str(key),), at_key=True))
        elif not accepts(child):
            faults.append(Fault(expected, show(child), (key,)))
    raise_faults(faults)
    return FrozenDict(value)


def read_dimensions(value: object) -> FrozenDict[str, str]:
    """Dimension names with remarks on them."""
    return _read_mapping(value, "a remark (a string)", lambda one: isinstance(one, str))


def read_names(value: object) -> tuple[str, ...]:
    """A list of names, each once."""
    if not isinstance(value, (list, tuple)):
        raise fault("a list of input names", show(value))
    faults = []
    seen: set[str] = set()
    for index, name in enumerate(value):
        if not isinstance(name, str):
            faults.append(Fault("the name of an input", show(name), (str(index),)))
        elif name in seen:
            faults.append(Fault("each input once", f"{show(name)} again", (str(index),)))
        else:
            seen.add(name)
    raise_faults(faults)
    return tuple(value)


def read_constraints(value: object) -> tuple[Constraint, ...]:
    """A list of comparisons, each alone or in a mapping with a remark."""
    if not isinstance(value, (list, tuple)):
        raise fault(f"a list of constraints, such as {_RULE}", show(value))
    faults: list[Fault] = []
    found = [_read_constraint(one, str(index), faults) for index, one in enumerate(value)]
    raise_faults(faults)
    return tuple(one for one in found if one is not None)


_RULE = "`dim % heads == 0`"
_CONSTRAINT_FIELDS = ("rule", "doc")


def _read_constraint(value: object, index: str, faults: list[Fault]) -> Constraint | None:
    if isinstance(value, Constraint):
        return value
    rule: object = value
    path: Path = (index,)
    doc: str | None = None
    if isinstance(value, Mapping):
        for key in value:
            if key not in _CONSTRAINT_FIELDS:
                hint = did_you_mean(key, _CONSTRAINT_FIELDS)
                expected = f"one of the fields {listed(_CONSTRAINT_FIELDS)}{hint}"
                found = f"the unknown field {show(key)}"
                faults.append(Fault(expected, found, (index, str(key)), at_key=True))
        if "rule" not in value:
            faults.append(Fault("a field `rule`", "nothing", (index,)))
            return None
        rule, path, remark = value["rule"], (index, "rule"), value.get("doc")
        if remark is not None and not isinstance(remark, str):
            faults.append(Fault("a string", show(remark), (index, "doc")))
        else:
            doc = remark
    if not isinstance(rule, str):
        faults.append(Fault(f"a constraint, such as {_RULE}", show(rule), path))
        return None
    try:
        return parse_constraint(rule, doc)
    except ShapeSyntaxError as error:
        faults.append(Fault(error.expected, error.found, path))
        return None
