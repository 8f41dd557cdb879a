"""The static arguments of two contracts compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ..language.static_arguments import StaticSpec, StaticType, Value
from ..language.versions import Level
from ..model import CallableSpec
from .shapes import Found


def static_changes(old: CallableSpec, new: CallableSpec) -> Iterator[Found]:
    """What a caller may pass: contravariant, so accepting more is additive."""
    for name, before in old.static.items():
        path = ("static", name)
        if name not in new.static:
            yield "breaking", path, "static argument removed"
            continue
        for level, text in _of_one(before, new.static[name]):
            yield level, path, text
    for name, after in new.static.items():
        if name in old.static:
            continue
        if after.required:
            yield "breaking", ("static", name), "new static argument that calls must pass"
        else:
            text = f"new static argument, default {_text(after.default)}"
            yield "additive", ("static", name), text


def _of_one(old: StaticSpec, new: StaticSpec) -> Iterator[tuple[Level, str]]:
    yield from _default(old, new)
    yield from _values(old, new)
    if old.doc != new.doc:
        yield "neutral", "doc changed"


def _default(old: StaticSpec, new: StaticSpec) -> Iterator[tuple[Level, str]]:
    if old.required and new.required:
        return
    if new.required:
        yield "breaking", f"no longer has the default {_text(old.default)}: calls must pass it"
    elif old.required:
        yield "additive", f"need no longer be passed, default {_text(new.default)}"
    elif _text(old.default) != _text(new.default):
        change = f"changed from {_text(old.default)} to {_text(new.default)}"
        yield "breaking", f"default {change}: calls without it give another result"


def _values(old: StaticSpec, new: StaticSpec) -> Iterator[tuple[Level, str]]:
    """Which values a call may pass. Types and choices may say the same: both booleans are bool."""
    before, after = _all_values(old), _all_values(new)
    # Neither can be listed, so types are compared as such.
    if before is None and after is None:
        yield from _type(old.type, new.type)
        return
    found = list(_lost(old, new, before)) + list(_won(old, new, before, after))
    if not found and old.type != new.type:
        found.append(("neutral", _type_words(old.type, new.type)))
    yield from found


def _type(old: StaticType | None, new: StaticType | None) -> Iterator[tuple[Level, str]]:
    if old == new:
        return
    change = _type_words(old, new)
    gone = new is not None and (old is None or not new.covers(old))
    more = old is not None and (new is None or not old.covers(new))
    if gone:
        yield "breaking", f"{change}: some values may no longer be passed"
    else:
        yield ("additive" if more else "neutral"), change


def _lost(
    old: StaticSpec, new: StaticSpec, before: tuple[Value, ...] | None
) -> Iterator[tuple[Level, str]]:
    if before is None:
        if new.choices:
            yield "breaking", f"only these values may be passed now: {_listed(new.choices)}"
        else:
            change = _type_words(old.type, new.type)
            yield "breaking", f"{change}: some values may no longer be passed"
        return
    gone = [one for one in before if new.problem_with(one) is not None]
    if gone:
        yield "breaking", f"may no longer be {_listed(gone)}"


def _won(
    old: StaticSpec,
    new: StaticSpec,
    before: tuple[Value, ...] | None,
    after: tuple[Value, ...] | None,
) -> Iterator[tuple[Level, str]]:
    if after is None:
        every = "any value" if new.type is None else f"any value of the type `{new.type}`"
        yield "additive", f"{every} may be passed now"
        return
    more = [one for one in after if old.problem_with(one) is not None]
    if more:
        yield "additive", f"may now be {_listed(more)}"


def _all_values(spec: StaticSpec) -> tuple[Value, ...] | None:
    """All that may be passed, where that can be listed."""
    if spec.choices:
        return spec.choices
    listed: dict[str, tuple[Value, ...]] = {"bool": (False, True), "null": (None,)}
    if spec.type is None or any(name not in listed for name in spec.type.names):
        return None
    return tuple(value for name in spec.type.names for value in listed[name])


def _type_words(old: StaticType | None, new: StaticType | None) -> str:
    return f"type changed from {old or 'any'} to {new or 'any'}"


def _listed(values: Iterable[Value]) -> str:
    return ", ".join(map(_text, values))


def _text(value: Value) -> str:
    # As YAML and JSON tell them apart: 1, 1.0 and true are equal in Python.
    return json.dumps(value)
