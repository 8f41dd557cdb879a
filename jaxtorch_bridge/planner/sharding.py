"""Which part of every array one shard gets, by the contract's dimension names.

Pure: works on shapes, names and mesh axes alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ShardingError
from .build_plan import ArrayArgument, ContractPath

if TYPE_CHECKING:
    from ..spec.model import CallableSpec, TensorSpec

# For each dimension of an array the mesh axes that it is sharded along; usually none or one.
Layout = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Placement:
    """How one call is cut into shards.

    Attributes:
        label: The callable's name, for messages.
        axes: (dimension name, mesh axis, number of shards) of what is cut.
        inputs: Of each array, the mesh axis of each dimension or None.
        shapes: Of each array, what one shard gets.
    """

    label: str
    axes: tuple[tuple[str, str, int], ...]
    inputs: tuple[tuple[str | None, ...], ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def words(self) -> tuple[str, ...]:
        """Lines for `explain`."""
        return tuple(
            f"`{name}` along mesh axis {axis}: one call for each of {count} shards"
            for name, axis, count in self.axes
        )


def is_whole(layout: Layout) -> bool:
    """Whether an array is not sharded at all."""
    return not any(layout)


def refuse_sharded(label: str, path: str, layout: Layout) -> ShardingError:
    """The error for an array that torch would have to see whole."""
    words = _layout_words(layout)
    return ShardingError(
        f"{label}: expected the whole of `{path}`, since torch sees no other part of it; got an "
        f"array sharded as {words}. If calls on single shards are meant, call it under "
        "jax.shard_map, or say `sharding: {dimension: mesh axis}` in a contract. Otherwise gather "
        f"it: jax.sharding.reshard({path}, jax.P({_all_none(layout)}))."
    )


def refuse_parts(label: str, path: str, parts: Sequence[int]) -> ShardingError:
    """The error for an array that XLA would gather, on a mesh whose axes are ``Auto``."""
    cut = ", ".join(
        f"dimension {dimension} into {count} parts"
        for dimension, count in enumerate(parts)
        if count > 1
    )
    return ShardingError(
        f"{label}: expected the whole of `{path}`, since torch sees no other part of it; XLA has "
        f"cut {cut} and would gather it in silence. Call it under jax.shard_map; or use a mesh of "
        "AxisType.Explicit and a contract with `sharding: {dimension: mesh axis}`; or ask for the "
        "gather with jax.lax.with_sharding_constraint."
    )


def refuse_no_results(label: str) -> ShardingError:
    """The error for a call that gives no elements in a program that XLA partitions."""
    return ShardingError(
        f"{label}: expected a function that gives more than empty arrays, a program of one "
        "device, or jax.shard_map around the call with something more than empty arrays among its "
        "results; this one gives none; XLA drops such calls, and cannot be told to keep one in a "
        "program that it makes for several devices."
    )


def refuse_nested(label: str, axes: Sequence[str], manual: Sequence[str]) -> ShardingError:
    """The error for a cut within a cut: XLA gathers what a partly manual `shard_map` leaves."""
    mine, others = "+".join(axes), "+".join(manual)
    return ShardingError(
        f"{label}: expected arrays that are whole within a part along mesh axis {others}; got some "
        f"that are sharded along {mine} as well, which XLA would gather in silence where the parts "
        "are made. Make all parts at once: put the call, with any jax.vmap around it, under one "
        f"jax.shard_map that is manual over {' and '.join((*manual, *axes))}."
    )


def refuse_random_shards(label: str) -> ShardingError:
    """What to raise where a call that may draw from one key is cut into shards."""
    return ShardingError(
        f"{label}: expected whole arrays, since the function draws from one random key; got "
        "sharded ones. Every shard would draw the same, and none what the whole draws. Call it "
        "inside of jax.shard_map with a key of each shard's own: "
        "rng=jax.random.fold_in(key, jax.lax.axis_index(axis))."
    )


def refuse_export(label: str) -> ShardingError:
    """The error for an export that could not carry the check for hidden gathers."""
    return ShardingError(
        f"{label}: cannot be exported for several devices whose mesh axes are Auto, since nothing "
        "could tell whether XLA gathers its operands where the program is loaded. Call it under "
        "jax.shard_map, which can be exported."
    )


def place_inputs(
    label: str,
    spec: CallableSpec | None,
    arrays: Sequence[ArrayArgument],
    layouts: Sequence[Layout],
    mesh: Mapping[str, int],
) -> Placement | None:
    """How to cut a call, or None if every array is whole.

    Args:
        label: The callable's name, for messages.
        spec: The contract.
        arrays: Of the call, with their whole shapes.
        layouts: Along what each of them is sharded.
        mesh: Mesh axes with their sizes.

    Raises:
        ShardingError: An array is sharded along a dimension that must be whole, or whole along
            one that is cut in others, or sizes do not divide.
    """
    if all(is_whole(layout) for layout in layouts):
        return None
    declared = dict(spec.input_leaves()) if spec else {}
    sharding = dict(spec.sharding) if spec else {}
    # Which dimensions are cut: those along which any array is, if the contract allows it.
    active: dict[str, str] = {}
    for array, layout in zip(arrays, layouts, strict=True):
        names = _names(declared.get(array.contract_path), array.shape)
        for dimension, (name, axes) in enumerate(zip(names, layout, strict=True)):
            if not axes:
                continue
            if spec is None or not sharding:
                raise refuse_sharded(label, array.path, layout)
            if name is None or sharding.get(name) is None or axes != (sharding[name],):
                # Advice to cut along an axis that the mesh has not would lead nowhere.
                allowed = sharding.get(name) if name else None
                allowed = allowed if allowed in mesh else None
                raise _wrongly_sharded(label, spec, array, layout, dimension, name, allowed)
            active[name] = sharding[name]
    # Some array is cut, which without a contract has been refused above.
    assert spec is not None
    inputs, shapes = [], []
    # Once more, now that all cuts are known: a dimension that is cut in one array must be in all.
    for array, layout in zip(arrays, layouts, strict=True):
        leaf = declared.get(array.contract_path)
        names = _names(leaf, array.shape)
        _refuse_arithmetic(label, spec, array.path, leaf, active, "input")
        _refuse_twice(label, spec, array.path, "input", names, active)
        for dimension, name in enumerate(names):
            if name in active and not layout[dimension]:
                raise _not_sharded(label, spec, array, names, dimension, active)
        inputs.append(tuple(active.get(name) if name else None for name in names))
        shapes.append(_part(label, array.path, array.shape, inputs[-1], mesh))
    cut = tuple((name, axis, mesh[axis]) for name, axis in active.items())
    return Placement(label, cut, tuple(inputs), tuple(shapes))


def place_outputs(
    label: str,
    spec: CallableSpec,
    placement: Placement,
    leaves: Sequence[tuple[ContractPath, TensorSpec]],
    ranks: Sequence[int],
) -> tuple[tuple[str | None, ...], ...]:
    """Of each output, the mesh axis of each dimension or None.

    Args:
        label: The callable's name, for messages.
        spec: The contract.
        placement: Of the inputs.
        leaves: The contract's outputs, in the order of the flat results.
        ranks: Of the flat results.

    Raises:
        ShardingError: An output has no such dimension, so that nothing says how to put the
            shards together, or has two along one mesh axis.
    """
    active = {name: axis for name, axis, _ in placement.axes}
    found = []
    for (path, leaf), rank in zip(leaves, ranks, strict=True):
        text = ".".join(path)
        _refuse_arithmetic(label, spec, text, leaf, active, "output")
        # Only the rank counts here: the sizes of the results are those of one shard.
        names = _names(leaf, (0,) * rank)
        for name, axis in active.items():
            # Without it nothing places a shard's result; with it twice no array can be cut.
            if names.count(name) != 1:
                raise ShardingError(
                    f"{label}, output `{text}`: expected the dimension `{name}` once, since the "
                    f"inputs are sharded along it (mesh axis {axis}); got `{leaf.shape}`, so "
                    "nothing says how to put the shards together. Gather the inputs with "
                    f"jax.sharding.reshard, or take `{name}` out of `sharding` "
                    f"[{spec.where('sharding')}]."
                )
        _refuse_twice(label, spec, text, "output", names, active)
        found.append(tuple(active.get(name) if name else None for name in names))
    return tuple(found)


def dimension_names(
    spec: CallableSpec | None, arrays: Sequence[ArrayArgument]
) -> tuple[tuple[str | None, ...], ...]:
    """For each array of a call, what the contract calls each dimension, or None."""
    declared = dict(spec.input_leaves()) if spec else {}
    return tuple(_names(declared.get(array.contract_path), array.shape) for array in arrays)


def _names(leaf: TensorSpec | None, shape: tuple[int, ...]) -> tuple[str | None, ...]:
    """The contract's plain name of each dimension."""
    # Here: a program without contracts starts without pydantic.
    from ..spec.language.shapes import Name
    from ..spec.language.sizes import aligned

    found: list[str | None] = [None] * len(shape)
    if leaf is not None:
        for dimension, axis, _ in aligned(leaf.shape, shape):
            if isinstance(dimension, Name):
                found[axis] = dimension.name
    return tuple(found)


def _refuse_arithmetic(
    label: str,
    spec: CallableSpec,
    path: str,
    leaf: TensorSpec | None,
    active: Mapping[str, str],
    kind: str,
) -> None:
    # Here: a program without contracts starts without pydantic.
    from ..spec.language.shapes import Name, names_in

    for dimension in leaf.shape.dimensions if leaf is not None else ():
        clashing = sorted(names_in(dimension) & set(active))
        if clashing and not isinstance(dimension, Name):
            raise ShardingError(
                f"{label}, {kind} `{path}`: the dimension `{dimension}` is computed from "
                f"`{clashing[0]}`, which is sharded along mesh axis {active[clashing[0]]}; what "
                "one shard has of it cannot be told. Gather the inputs with "
                f"jax.sharding.reshard, or take it out of `sharding` [{spec.where('sharding')}]."
            )


def _refuse_twice(
    label: str,
    spec: CallableSpec,
    path: str,
    kind: str,
    names: Sequence[str | None],
    active: Mapping[str, str],
) -> None:
    """Object to two dimensions of one array along one mesh axis, which no array can be."""
    owners: dict[str, str] = {}
    for name in names:
        axis = active.get(name) if name else None
        if axis is None:
            continue
        assert name is not None
        if axis in owners:
            which = f"`{name}` twice" if owners[axis] == name else f"`{owners[axis]}` and `{name}`"
            raise ShardingError(
                f"{label}, {kind} `{path}`: expected one dimension along mesh axis {axis}; got "
                f"{which}, and an array can be cut along an axis only once. Gather the inputs with "
                "jax.sharding.reshard, or put the dimensions on axes of their own "
                f"[{spec.where('sharding')}]."
            )
        owners[axis] = name


def _part(
    label: str,
    path: str,
    shape: tuple[int, ...],
    axes: Sequence[str | None],
    mesh: Mapping[str, int],
) -> tuple[int, ...]:
    found = []
    for dimension, (size, axis) in enumerate(zip(shape, axes, strict=True)):
        count = 1 if axis is None else mesh[axis]
        if size % count:
            raise ShardingError(
                f"{label}, `{path}`: expected the size of dimension {dimension} to be divisible by "
                f"the {count} devices along mesh axis {axis}; got {size}."
            )
        found.append(size // count)
    return tuple(found)


def _wrongly_sharded(
    label: str,
    spec: CallableSpec,
    array: ArrayArgument,
    layout: Layout,
    dimension: int,
    name: str | None,
    allowed: str | None,
) -> ShardingError:
    what = f"dimension {dimension}" + (f" (`{name}`)" if name else "")
    expected = f"sharded along {allowed} or whole" if allowed else "whole"
    # The array's own layout, but for the dimension at fault.
    spec_of_reshard = ", ".join(
        "None"
        if index == dimension and not allowed
        else repr(allowed)
        if index == dimension
        else _axes_words(axes)
        for index, axes in enumerate(layout)
    )
    return ShardingError(
        f"{label}, `{array.path}`: expected {what} {expected}, as the contract says "
        f"[{spec.where('sharding')}]; got it sharded along {'+'.join(layout[dimension])}. Write "
        f"jax.sharding.reshard({array.path}, jax.P({spec_of_reshard}))."
    )


def _not_sharded(
    label: str,
    spec: CallableSpec,
    array: ArrayArgument,
    names: Sequence[str | None],
    dimension: int,
    active: Mapping[str, str],
) -> ShardingError:
    name = names[dimension]
    wanted = ", ".join(repr(active[n]) if n and n in active else "None" for n in names)
    return ShardingError(
        f"{label}, `{array.path}`: expected dimension {dimension} (`{name}`) sharded along "
        f"{active[str(name)]}, as it is in other arguments; got it whole. Write "
        f"jax.sharding.reshard({array.path}, jax.P({wanted}))."
    )


def _layout_words(layout: Layout) -> str:
    return f"P({', '.join(_axes_words(axes) for axes in layout)})"


def _axes_words(axes: tuple[str, ...]) -> str:
    if not axes:
        return "None"
    return repr(axes[0]) if len(axes) == 1 else repr(axes)


def _all_none(layout: Layout) -> str:
    return ", ".join("None" for _ in layout)
