"""The fields of two contracts besides their arrays compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..language.shapes import Name
from ..model import CallableSpec
from .constraints import constraint_changes
from .shapes import Found, ShapePair
from .static_arguments import static_changes

# Fields that say how a call is run, not what it takes or gives.
_HOW = ("residuals", "vmap_method", "verify", "concurrency")


def field_changes(old: CallableSpec, new: CallableSpec, pair: ShapePair) -> Iterator[Found]:
    """Everything that is neither input, output, dimension nor version."""
    if old.name != new.name:
        yield "breaking", ("name",), f"renamed from `{old.name}` to `{new.name}`"
    if old.doc != new.doc:
        yield "neutral", ("doc",), "changed"
    yield from _function(old.function, new.function)
    yield from static_changes(old, new)
    for field in ("groups", "dimensions"):
        yield from _docs(field, getattr(old, field), getattr(new, field))
    yield from constraint_changes(old, new, pair)
    yield from _depth(old.vjp_depth, new.vjp_depth)
    for name in _HOW:
        if getattr(old, name) != getattr(new, name):
            yield "neutral", (name,), _from_to(getattr(old, name), getattr(new, name))
    for part in ("backend", "outputs", "islands", "cuda_graph"):
        before, after = getattr(old.execution, part), getattr(new.execution, part)
        if before != after:
            yield "neutral", ("execution", part), _from_to(before, after)
    yield from _sharding(old, new, pair)
    yield from _mutates(old, new)
    yield from _copies(old, new)
    if old.random != new.random:
        yield "breaking", ("random",), _from_to(old.random, new.random)


def _function(old: str | None, new: str | None) -> Iterator[Found]:
    if old == new:
        return
    if old is None:
        yield "additive", ("function",), f"now says where it is: `{new}`"
    elif new is None:
        yield "breaking", ("function",), f"no longer says where it is: `{old}`"
    else:
        text = f"moved from `{old}` to `{new}`: imports of the old place fail"
        yield "breaking", ("function",), text


def _docs(field: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Found]:
    for name in old.keys() | new.keys():
        if old.get(name) != new.get(name):
            yield "neutral", (field, name), "doc changed"


def _depth(old: int | None, new: int | None) -> Iterator[Found]:
    if old == new:
        return
    change = _from_to("unlimited" if old is None else old, "unlimited" if new is None else new)
    lower = new is not None and (old is None or new < old)
    yield ("breaking" if lower else "additive"), ("vjp_depth",), change


def _sharding(old: CallableSpec, new: CallableSpec, pair: ShapePair) -> Iterator[Found]:
    was = dict(old.sharding)
    now = {_old_name(name, pair): (name, axis) for name, axis in new.sharding.items()}
    for name, axis in was.items():
        if name not in now:
            text = f"`{name}` may no longer be cut along `{axis}`"
            yield "breaking", ("sharding", name), text
        elif now[name][1] != axis:
            yield "breaking", ("sharding", name), f"mesh axis {_from_to(axis, now[name][1])}"
    for known, (name, axis) in now.items():
        if known not in was:
            yield "additive", ("sharding", name), f"`{name}` may now be cut along `{axis}`"


def _old_name(name: str, pair: ShapePair) -> str:
    """The old name of a dimension that was only renamed."""
    known = pair.forth.known.get(name)
    return known.name if isinstance(known, Name) else name


def _mutates(old: CallableSpec, new: CallableSpec) -> Iterator[Found]:
    for name in new.mutates:
        if name not in old.mutates:
            yield "breaking", ("mutates",), f"now writes to `{name}`"
    for name in old.mutates:
        if name not in new.mutates:
            text = f"no longer writes to `{name}`: torch callers may rely on it"
            yield "breaking", ("mutates",), text
    if old.mutates != new.mutates and set(old.mutates) == set(new.mutates):
        order = ", ".join(f"`{name}`" for name in new.mutates)
        yield "breaking", ("mutates",), f"new values come back in another order: {order}"


def _copies(old: CallableSpec, new: CallableSpec) -> Iterator[Found]:
    # Neutral both ways: the caller's array keeps its value, and torch callers see what they saw.
    for name in new.copies:
        if name not in old.copies:
            yield "neutral", ("copies",), f"the function now gets a copy of `{name}`"
    for name in old.copies:
        if name not in new.copies:
            yield "neutral", ("copies",), f"the function no longer gets a copy of `{name}`"


def _from_to(old: object, new: object) -> str:
    return f"changed from {_word(old)} to {_word(new)}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
