"""The parts of one version in words: arrays, static arguments, dimensions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ... import dtypes
from ...dotted_names import is_part
from ...spec.array_tree import Leaves, leaves_of, paths_of
from ...spec.bounded_sizes import remarks_on
from ...spec.group_remarks import remarks_below
from ...spec.language.problems import Path
from ...spec.language.shapes import Name, Rest, names_in
from ...spec.language.static_arguments import StaticSpec
from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec

# What happens to inputs, in a word, and the names of those that it happens to.
Effects = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Part:
    """One line of a list.

    Attributes:
        name: Its name, such as ``params.weight``.
        type: What it is, in the contract's words; may be empty.
        tags: Short remarks, such as ``optional``.
        doc: A longer one; may have several lines.
    """

    name: str
    type: str
    tags: tuple[str, ...] = ()
    doc: str | None = None


def inputs_of(spec: CallableSpec) -> tuple[Part, ...]:
    """The input arrays."""
    effects = {"written to": spec.mutates, "copied": spec.copies}
    return tuple(_array(spec, path, leaf, effects) for path, leaf in spec.input_leaves())


def outputs_of(spec: CallableSpec) -> tuple[Part, ...]:
    """The output arrays."""
    return tuple(_array(spec, path, leaf, {}) for path, leaf in leaves_of(spec.outputs))


def with_groups(spec: CallableSpec, kind: str, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """The arrays of ``inputs`` or ``outputs``, and each group with a remark before its own."""
    remarks, arrays = remarks_below(spec.groups, kind), iter(parts)
    found: list[Part] = []
    for path, node in paths_of(getattr(spec, kind)):
        name = ".".join(path)
        if isinstance(node, TensorSpec):
            found.append(next(arrays))
        elif name in remarks:
            what = "list" if isinstance(node, tuple) else "group"
            found.append(Part(name, what, (), remarks[name]))
    return tuple(found)


def constraints_of(spec: CallableSpec) -> tuple[Part, ...]:
    """What sizes must meet."""
    return tuple(Part(str(one), "", (), one.doc) for one in spec.constraints)


def static_of(spec: CallableSpec) -> tuple[Part, ...]:
    """The other arguments, with their types and defaults."""
    return tuple(
        Part(name, "required" if one.required else f"= {one.default!r}", tuple(_kind(one)), one.doc)
        for name, one in spec.static.items()
    )


def dimensions_of(spec: CallableSpec) -> tuple[Part, ...]:
    """Each dimension: which axes set its size, and where its blocks may lie."""
    axes = _axes(spec.input_leaves())
    parts = []
    for name, places in axes.items():
        tags = (f"mesh axis {spec.sharding[name]}",) if name in spec.sharding else ()
        parts.append(Part(name, ", ".join(places), tags, _remarks(spec, name)))
    return tuple(parts)


def _array(spec: CallableSpec, path: Path, leaf: TensorSpec, effects: Effects) -> Part:
    name = ".".join(path)
    tags = [*_tags(spec, name, leaf, effects), *remarks_on(leaf, spec.bounds)]
    if path in spec.counts:
        tags.append(f"counts {spec.counts[path]}")
    return Part(name, str(leaf), tuple(tags), leaf.doc)


def _tags(spec: CallableSpec, name: str, leaf: TensorSpec, effects: Effects) -> Iterator[str]:
    if leaf.optional:
        yield "optional"
    # A dtype without gradients says so by itself.
    has_gradients = any(dtypes.DTYPES[one].differentiable for one in spec.dtypes_of(leaf))
    if has_gradients and not leaf.differentiable:
        yield "no gradient"
    for effect, names in effects.items():
        if any(is_part(name, one) for one in names):
            yield effect


def _kind(static: StaticSpec) -> Iterator[str]:
    if static.type is not None:
        yield str(static.type)
    if static.choices:
        yield f"one of {', '.join(map(repr, static.choices))}"


def _axes(leaves: Leaves) -> dict[str, list[str]]:
    """Dimension -> the axes of inputs that have it alone, in the order in which sizes bind."""
    axes: dict[str, list[str]] = {}
    for path, leaf in leaves:
        for axis, dimension in enumerate(leaf.shape.dimensions):
            if isinstance(dimension, Name | Rest):
                # After `...` an axis is known by its distance from the end.
                rest = leaf.shape.rest_axis
                after = rest is not None and axis > rest
                number = axis - len(leaf.shape.dimensions) if after else axis
                where = "leading" if isinstance(dimension, Rest) else f"axis {number}"
                axes.setdefault(str(dimension), []).append(f"{'.'.join(path)} {where}")
    return axes


def _remarks(spec: CallableSpec, name: str) -> str | None:
    lines = [spec.dimensions[name]] if name in spec.dimensions else []
    lines += [str(one) for one in spec.constraints if name in one.names]
    for path, leaf in spec.output_leaves():
        lines += [
            f"{'.'.join(path)} has {dimension}"
            for dimension in leaf.shape.dimensions
            if not isinstance(dimension, Name) and name in names_in(dimension)
        ]
    return "\n".join(lines) or None
