"""The static arguments of two contracts compared."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .diff_shapes import Found
from .model import CallableSpec
from .static import StaticSpec, StaticType, Value, same_value
from .versions import Level


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
    yield from _type(old.type, new.type)
    yield from _choices(old, new)
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


def _type(old: StaticType | None, new: StaticType | None) -> Iterator[tuple[Level, str]]:
    if old == new:
        return
    change = f"type changed from {old or 'any'} to {new or 'any'}"
    gone = new is not None and (old is None or not new.covers(old))
    more = old is not None and (new is None or not old.covers(new))
    if gone:
        yield "breaking", f"{change}: some values may no longer be passed"
    else:
        yield ("additive" if more else "neutral"), change


def _choices(old: StaticSpec, new: StaticSpec) -> Iterator[tuple[Level, str]]:
    gone = [one for one in old.choices if not _among(one, new.choices)]
    more = [one for one in new.choices if not _among(one, old.choices)]
    if new.choices and not old.choices:
        yield "breaking", f"only these values may be passed now: {_listed(more)}"
    elif old.choices and not new.choices:
        yield "additive", "any value of the type may be passed now"
    else:
        if gone:
            yield "breaking", f"may no longer be {_listed(gone)}"
        if more:
            yield "additive", f"may now be {_listed(more)}"


def _among(value: Value, choices: tuple[Value, ...]) -> bool:
    return any(same_value(value, one) for one in choices)


def _listed(values: list[Value]) -> str:
    return ", ".join(map(_text, values))


def _text(value: Value) -> str:
    # As YAML and JSON tell them apart: 1, 1.0 and true are equal in Python.
    return json.dumps(value)
