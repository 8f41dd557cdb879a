"""Calls cut into shards, as a contract's ``sharding`` says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...errors import ShardingError
from ...planner.build_plan import ArrayArgument
from ...planner.sharding import Layout, Placement, place_inputs, place_outputs
from ...spec.language.shapes import Name, Shape
from ...spec.language.sizes import aligned
from ...spec.model import CallableSpec
from . import problems
from .cases import Case
from .planned_transforms import Promises
from .sizes import Sizes, SizeSearch

# Along every mesh axis.
PARTS = 2


def shards_of(
    spec: CallableSpec, search: SizeSearch, case: Case
) -> tuple[Promises, Case | None, Case | None]:
    """Two shards along every mesh axis of the contract.

    Returns:
        What is known of them; a call that can be cut so, and the call that each shard gets.
    """
    found = Promises()
    sizes = _even_sizes(spec, search, dict(case.sizes))
    if sizes is None:
        words = "not looked at: found no sizes whose halves meet the constraints as well"
        found.remarks.append(("sharding", words))
        return found, None, None
    whole = case.with_sizes(sizes)
    mesh = dict.fromkeys(spec.sharding.values(), PARTS)
    try:
        placement = placement_of(spec, whole, mesh)
    except ShardingError as error:
        expected = "dimensions along which calls can be cut"
        found.problems.append(problems.problem_at(spec, "sharding", expected, str(error)))
        return found, None, None
    found.remarks += [
        ("sharding", f"`{name}` along mesh axis {axis}: one call for each shard")
        for name, axis, _ in (placement.axes if placement is not None else ())
    ]
    return found, whole, whole.with_sizes(_halves(spec, sizes))


def placement_of(spec: CallableSpec, case: Case, mesh: Mapping[str, int]) -> Placement | None:
    """How a call is cut along the axes of ``mesh``; None if they cut nothing.

    Raises:
        ShardingError: Sizes do not divide, or the results could not be put together.
    """
    arrays, layouts = [], []
    for array, layout in _sharded_inputs(spec, case, mesh):
        arrays.append(array)
        layouts.append(layout)
    placement = place_inputs(spec.label, spec, arrays, layouts, mesh)
    if placement is not None:
        ranks = [_rank(leaf.shape, case) for _, leaf in spec.output_leaves()]
        place_outputs(spec.label, spec, placement, spec.output_leaves(), ranks)
    return placement


def _even_sizes(spec: CallableSpec, search: SizeSearch, base: Sizes) -> Sizes | None:
    # A half has to meet the constraints as well, which small factors may not allow.
    for factor in (2, 4, 8, 16, 64):
        preferred = {
            name: (factor * size if name in spec.sharding else size,) for name, size in base.items()
        }
        sizes = search.find(preferred)
        if sizes is None:
            continue
        even = all(sizes[name] % PARTS == 0 for name in spec.sharding)
        if even and search.fits(_halves(spec, sizes)):
            return sizes
    return None


def _halves(spec: CallableSpec, sizes: Sizes) -> Sizes:
    return {name: size // PARTS if name in spec.sharding else size for name, size in sizes.items()}


def _sharded_inputs(
    spec: CallableSpec, case: Case, mesh: Mapping[str, int]
) -> Iterator[tuple[ArrayArgument, Layout]]:
    for path, leaf in spec.input_leaves():
        if path in case.without:
            continue
        shape = case.shape_of(leaf.shape)
        layout: list[tuple[str, ...]] = [()] * len(shape)
        for dimension, axis, _ in aligned(leaf.shape, shape):
            along = spec.sharding.get(dimension.name) if isinstance(dimension, Name) else None
            if along in mesh:
                layout[axis] = (str(along),)
        yield (
            ArrayArgument(".".join(path), path, shape, case.dtype_of(spec, path, leaf)),
            tuple(layout),
        )


def _rank(shape: Shape, case: Case) -> int:
    return shape.least_rank + (len(case.rest) if shape.rest_axis is not None else 0)
