"""Operations that do the same for each element of a batch, where the batch is cut over a mesh.

How results are cut, JAX tells operation by operation. A lowering is made of many, with constants,
loops and branches, of which JAX refuses some though nothing has to be gathered: those whose
operands are cut in different ways, a Cholesky factorisation (JAX 0.10), a scattering. What torch
calls one operation has a batch as a whole, and that tells how its results are cut.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..._compat.jax.sharding import cut_by_xla, explicit_layout, mesh_of
from ...planner.sharding import is_whole
from .registry import Lowering, Out, lowers

Shape = tuple[int, ...]
# Of an operation's results and arguments: the leading axes of its batch. Results and arrays that
# begin with these axes have an element for each place of them, and others serve all alike.
Batch = Callable[..., Shape]


def lowers_batches(batch: Batch, *names: str) -> Callable[[Lowering], Lowering]:
    """See `lowers`; elements along the axes of ``batch`` are independent."""

    def enter(lowering: Lowering) -> Lowering:
        lowers(*names)(_by_elements(lowering, batch))
        return lowering

    return enter


def of_matrices(outs: Any, *args: Any, **kwargs: Any) -> Shape:
    """All axes but the last two."""
    most = max(_arrays_in((args, kwargs)), key=lambda array: len(array.shape))
    return tuple(most.shape[:-2])


def before_axis(outs: Any, x: Any, dim: int = -1, *args: Any, **kwargs: Any) -> Shape:
    """The axes before the one that an operation works along."""
    return tuple(x.shape[: dim % x.ndim]) if x.ndim else ()


def before_axis_of_source(
    outs: Any, x: Any, source: Any, dim: int = 0, *args: Any, **kwargs: Any
) -> Shape:
    """The axes before the one of which a part is replaced by something else."""
    return before_axis(outs, x, dim)


def first_axis(outs: Any, x: Any, *args: Any, **kwargs: Any) -> Shape:
    """The first axis."""
    return tuple(x.shape[:1])


def in_common(out: Out, x: Any, *args: Any, **kwargs: Any) -> Shape:
    """The first axes, as many as the argument and the result share."""
    pairs = zip(x.shape, out.shape, strict=False)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
    return tuple(size for size, _ in same)


def before_joined_axis(out: Out, tensors: Sequence[Any], dim: int = 0) -> Shape:
    """The axes before the one along which arrays are joined."""
    return out.shape[: dim % len(out.shape)] if out.shape else ()


def of_indices(out: Out, table: Any, indices: Any, *args: Any, **kwargs: Any) -> Shape:
    """All axes of the indices at which a table is read."""
    return tuple(indices.shape)


def before_indices(out: Out, x: Any, indices: Sequence[Any], *args: Any, **kwargs: Any) -> Shape:
    """The axes that are taken whole, before the first that is indexed."""
    count = next((place for place, one in enumerate(indices) if one is not None), 0)
    return tuple(x.shape[:count])


def of_result(out: Out, *args: Any, **kwargs: Any) -> Shape:
    """All axes of the one result."""
    return out.shape


def _by_elements(lowering: Lowering, batch: Batch) -> Lowering:
    @functools.wraps(lowering)
    def run(outs: Any, *args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        places = [place for place, leaf in enumerate(leaves) if _is_array(leaf)]
        arrays = [leaves[place] for place in places]
        mesh: Any = mesh_of(arrays)
        shape = () if mesh is None else batch(outs, *args, **kwargs)
        axes = _axes_of(arrays, shape)
        if axes is None:
            # Nothing is cut; or otherwise than the batch, of which JAX's own rules know more.
            return lowering(outs, *args, **kwargs)

        def lowered(*parts: Any) -> Any:
            given = list(leaves)
            for place, part in zip(places, parts, strict=True):
                given[place] = part
            args, kwargs = jax.tree.unflatten(tree, given)
            found = lowering(outs, *args, **kwargs)
            return found if isinstance(outs, Out) else tuple(found)

        def spec(out: Out) -> Any:
            return jax.P(*axes) if _has(out.shape, shape) else jax.P()

        specs = spec(outs) if isinstance(outs, Out) else tuple(map(spec, outs))
        return cut_by_xla(lowered, mesh, specs)(*arrays)

    return run


def _axes_of(arrays: Sequence[Any], shape: Shape) -> list[Any] | None:
    """Along which mesh axes each axis of a batch is cut; None if it is not what is cut."""
    found: list[tuple[str, ...]] = [()] * len(shape)
    for array in arrays:
        layout = explicit_layout(array)
        if is_whole(layout):
            continue
        if not _has(array.shape, shape) or any(layout[len(shape) :]):
            return None
        for axis, names in enumerate(layout[: len(shape)]):
            if names and found[axis] not in ((), names):
                return None
            found[axis] = names or found[axis]
    used = [name for names in found for name in names]
    if not used or len(used) != len(set(used)):
        return None
    return [names or None for names in found]


def _has(shape: Sequence[int], batch: Shape) -> bool:
    return tuple(shape[: len(batch)]) == batch


def _arrays_in(values: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(values) if _is_array(leaf)]


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")
