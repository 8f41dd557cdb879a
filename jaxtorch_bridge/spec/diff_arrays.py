"""The arrays of two contracts compared, but for their shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .. import dtypes
from .diff_shapes import Found
from .faults import Path
from .frozen import FrozenDict
from .model import CallableSpec
from .nodes import Node
from .tensor import TensorSpec

# Integers whose 32-bit form callers may pass as well.
_ALSO_32_BITS = {"int64": "int32", "uint64": "uint32"}


def input_changes(old: CallableSpec, new: CallableSpec) -> Iterator[Found]:
    """What a caller must pass: contravariant, so asking for less is additive."""
    before, after = dict(old.input_leaves()), dict(new.input_leaves())
    for path in before.keys() - after.keys():
        yield "breaking", path, f"input removed, `{before[path]}`"
    last_common = max((i for i, name in enumerate(new.inputs) if name in old.inputs), default=-1)
    order = {name: index for index, name in enumerate(new.inputs)}
    for path, leaf in after.items():
        if path in before:
            yield from _input(path, before[path], leaf)
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
            yield from _output(path, before[path], leaf)
        else:
            # A contract does not say whether results come as a tuple; unpacking one would fail.
            text = f"new output, `{leaf}`: callers that unpack the results get one more"
            yield "breaking", path, text
    yield from _reordered(old.outputs, new.outputs, "results unpacked by position change places")


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


def _input(path: Path, old: TensorSpec, new: TensorSpec) -> Iterator[Found]:
    if old.dtype != new.dtype:
        if _accepted(old.dtype) <= _accepted(new.dtype):
            yield "additive", path, _dtype_text(old.dtype, new.dtype)
        else:
            text = f"{_dtype_text(old.dtype, new.dtype)}; calls must pass exactly this dtype"
            yield "breaking", path, text
    if old.optional != new.optional:
        if new.optional:
            yield "additive", path, "no longer required"
        else:
            yield "breaking", path, "no longer optional"
    yield from _in_common(path, old, new)


def _output(path: Path, old: TensorSpec, new: TensorSpec) -> Iterator[Found]:
    if old.dtype != new.dtype:
        yield "breaking", path, _dtype_text(old.dtype, new.dtype)
    yield from _in_common(path, old, new)


def _in_common(path: Path, old: TensorSpec, new: TensorSpec) -> Iterator[Found]:
    # A dtype without gradients says so by itself.
    if old.differentiable and not new.differentiable:
        yield "breaking", path, "no longer differentiable: its gradient becomes zero"
    if new.differentiable and not old.differentiable:
        yield "additive", path, "now differentiable"
    if old.doc != new.doc:
        yield "neutral", path, "doc changed"


def _accepted(dtype: str) -> frozenset[str]:
    return frozenset((dtype, _ALSO_32_BITS.get(dtype, dtype)))


def _dtype_text(old: str, new: str) -> str:
    before, after = dtypes.DTYPES[old], dtypes.DTYPES[new]
    verb = "changed"
    if before.kind == after.kind and before.size_bytes != after.size_bytes:
        verb = "narrowed" if after.size_bytes < before.size_bytes else "widened"
    return f"dtype {verb} from {old} to {new}"


def _reordered(
    old: Mapping[str, Node], new: Mapping[str, Node], consequence: str
) -> Iterator[Found]:
    before = [name for name in old if name in new]
    after = [name for name in new if name in old]
    if before != after:
        was, now = ", ".join(before), ", ".join(after)
        yield "breaking", (), f"order changed from ({was}) to ({now}): {consequence}"
