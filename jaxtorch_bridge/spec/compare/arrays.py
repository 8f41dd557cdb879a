"""The arrays of two contracts compared, but for their shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ... import dtypes
from ..array_tree import Node, leaves_of, paths_of
from ..language.frozen_mapping import FrozenDict
from ..language.problems import Path
from ..model import CallableSpec
from ..tensor import TensorSpec
from .dtypes import input_dtype_changes, output_dtype_changes
from .shapes import Found


def input_changes(old: CallableSpec, new: CallableSpec) -> Iterator[Found]:
    """What a caller must pass: contravariant, so asking for less is additive."""
    before, after = dict(old.input_leaves()), dict(new.input_leaves())
    for path in before.keys() - after.keys():
        yield "breaking", path, f"input removed, `{before[path]}`"
    # Behind all inputs that old calls pass, a new optional one moves none of them.
    last_common = max((i for i, name in enumerate(new.inputs) if name in old.inputs), default=-1)
    order = {name: index for index, name in enumerate(new.inputs)}
    for path, leaf in after.items():
        if path in before:
            yield from _input(path, old, before[path], new, leaf)
        elif not leaf.optional:
            yield "breaking", path, f"new required input, `{leaf}`"
        elif path[0] not in old.inputs and order[path[0]] < last_common:
            text = (
                f"new optional input, `{leaf}`, before others: these move when passed by position"
            )
            yield "breaking", path, text
        else:
            yield "additive", path, f"new optional input, `{leaf}`"
    yield from _reordered(old.inputs, new.inputs, "arguments passed by position change places")


def output_changes(old: CallableSpec, new: CallableSpec) -> Iterator[Found]:
    """What a caller gets: covariant, so promising more is additive."""
    before, after = dict(old.output_leaves()), dict(new.output_leaves())
    for path in before.keys() - after.keys():
        yield "breaking", path, f"output removed, `{before[path]}`"
    for path, leaf in after.items():
        if path in before:
            yield from output_dtype_changes(path, old, before[path], new, leaf)
            yield from _in_common(path, old, before[path], new, leaf)
        else:
            # A contract does not say whether results come as a tuple; unpacking one would fail.
            text = f"new output, `{leaf}`: callers that unpack the results get one more"
            yield "breaking", path, text
    yield from _reordered(old.outputs, new.outputs, "results unpacked by position change places")


def empty_changes(old: Mapping[str, Node], new: Mapping[str, Node], path: Path) -> Iterator[Found]:
    """Groups and lists of nothing that came or went: no arrays, but arguments all the same."""
    # Arrays are compared by their paths, of which these have none.
    before, after = (
        {(*path, *below) for below, node in paths_of(tree) if not leaves_of(node)}
        for tree in (old, new)
    )
    for one in after - before:
        yield "breaking", one, "new, without arrays: callers pass or get one more"
    for one in before - after:
        yield "breaking", one, "without arrays before: removed, or filled"


def structure_changes(old: Node, new: Node, path: Path = ()) -> Iterator[Found]:
    """Groups that became lists or arrays, and the other way round."""
    if type(old) is not type(new):
        yield "breaking", path, f"{_kind(old)} became {_kind(new)}"
    elif isinstance(old, FrozenDict) and isinstance(new, FrozenDict):
        for name in old:
            if name in new:
                yield from structure_changes(old[name], new[name], (*path, name))
    elif isinstance(old, tuple) and isinstance(new, tuple):
        for index, (before, after) in enumerate(zip(old, new, strict=False)):
            yield from structure_changes(before, after, (*path, str(index)))


def _kind(node: Node) -> str:
    if isinstance(node, TensorSpec):
        return "an array"
    return "a list" if isinstance(node, tuple) else "a group"


def _input(
    path: Path, old: CallableSpec, before: TensorSpec, new: CallableSpec, after: TensorSpec
) -> Iterator[Found]:
    yield from input_dtype_changes(path, old, before, new, after)
    if before.optional != after.optional:
        if after.optional:
            yield "additive", path, "no longer required"
        else:
            yield "breaking", path, "no longer optional"
    yield from _in_common(path, old, before, new, after)


def _in_common(
    path: Path, old: CallableSpec, before: TensorSpec, new: CallableSpec, after: TensorSpec
) -> Iterator[Found]:
    was, now = _differentiable(old, before), _differentiable(new, after)
    # A dtype without gradients says so by itself.
    if was and not now:
        yield "breaking", path, "no longer differentiable: its gradient becomes zero"
    if now and not was:
        if any(dtypes.DTYPES[one].differentiable for one in old.dtypes_of(before)):
            # Calls that took the zero for granted, to train nothing there, change in silence.
            yield "breaking", path, "now differentiable: its gradient is no longer zero"
        else:
            yield "additive", path, "now differentiable"
    if before.doc != after.doc:
        yield "neutral", path, "doc changed"


def _differentiable(spec: CallableSpec, leaf: TensorSpec) -> bool:
    choices = spec.dtypes_of(leaf)
    return leaf.differentiable and any(dtypes.DTYPES[one].differentiable for one in choices)


def _reordered(
    old: Mapping[str, Node], new: Mapping[str, Node], consequence: str
) -> Iterator[Found]:
    before = [name for name in old if name in new]
    after = [name for name in new if name in old]
    if before != after:
        was, now = ", ".join(before), ", ".join(after)
        yield "breaking", (), f"order changed from ({was}) to ({now}): {consequence}"
