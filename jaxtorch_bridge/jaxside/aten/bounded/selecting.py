"""Operations that choose by values, and those whose places are values."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from ....planner.aten_program import BoundedSize, ResultSig
from ..places.indexing import put
from ..registry import dtype_of
from .bounded_step import BoundedStep, axis_of, bound_at, bounded, sizes_of


def _places(call: BoundedStep, mask: Any, sig: ResultSig) -> tuple[list[Any], Any]:
    """Where a mask is set, an array for each axis, and how often that is."""
    mask = call.filled(mask != 0, sig, False)
    found = jnp.nonzero(mask, size=mask.size, fill_value=0)
    return [one.astype(jnp.int64) for one in found], jnp.sum(mask, dtype=jnp.int64)


@bounded("nonzero.default")
def nonzero(call: BoundedStep) -> Any:
    """A row for each place."""
    (_, sig), (result,) = next(call.arrays()), call.results
    if not sig.shape:
        raise call.refuse("a tensor without axes")
    places, count = _places(call, call.args[0], sig)
    size = bound_at(result, 0)
    assert size is not None
    call.counts(size, count)
    call.counts_mask(call.step.args[0], size)
    return jnp.stack(places, axis=-1)


@bounded("masked_select.default")
def masked_select(call: BoundedStep) -> Any:
    """Row by row, of what fits together."""
    if any(sig.bounded for _, sig in call.arrays()):
        raise call.refuse("sizes that follow from values")
    (result,) = call.results
    x, mask = jnp.broadcast_arrays(call.args[0], call.args[1])
    (places,) = jnp.nonzero(mask.ravel(), size=mask.size, fill_value=0)
    call.counts(bound_at(result, 0), jnp.sum(mask, dtype=jnp.int64))
    return x.ravel()[places]


@bounded("index.Tensor", "_unsafe_index.Tensor")
def index(call: BoundedStep) -> Any:
    """By masks and by places; a mask says how much there is."""
    (result,), x = call.results, call.sigs[0]
    indices, inside, count = _by_places(call, x)
    if count is not None:
        fresh = {size for size in result.bounded if size is not None and size not in x.bounded}
        for size in fresh:
            if len(size.terms) == 1 and size.terms[0][0] == 1:
                call.counts(size, count)
                _note_masks(call, size)
    call.args[1] = tuple(
        one if one is None or here is None else jnp.where(here, one, 0)
        for one, here in zip(indices, inside, strict=True)
    )
    return call.plain()


@bounded("index_put.default", "_unsafe_index_put.default")
def index_put(call: BoundedStep) -> Any:
    """What is padding goes nowhere."""
    x, sig = call.args[0], call.sigs[0]
    accumulate = call.args[3] if len(call.args) > 3 else call.kwargs.get("accumulate", False)
    indices, inside, _ = _by_places(call, sig)
    _refuse_other_sizes(call)
    where: list[Any] = []
    for axis, (one, here) in enumerate(zip(indices, inside, strict=True)):
        if one is None:
            where.append(slice(None))
        else:
            where.append(one if here is None else jnp.where(here, one, x.shape[axis]))
    how, values = "add" if accumulate else "set", call.args[2].astype(x.dtype)
    return put(x, tuple(where), values, how, mode="drop")


def _note_masks(call: BoundedStep, size: BoundedSize) -> None:
    for ref, sig in zip(call.step.args[1], call.sigs[1], strict=True):
        if sig is not None and sig.dtype in _MASKS:
            call.counts_mask(ref, size)


_MASKS = ("bool", "uint8")


def _refuse_other_sizes(call: BoundedStep) -> None:
    """Object to values of which nobody knows that there are as many as places, or one for all."""
    x, values = sizes_of(call.sigs[0]), sizes_of(call.sigs[2])
    # The sizes along the axes that indices stand for, and around them.
    chosen: list[Any] = []
    around: list[Any] = []
    gaps, axis = 0, 0
    first: int | None = None
    for ref, sig in zip(call.step.args[1], call.sigs[1], strict=True):
        if sig is None:
            around.append(x[axis])
            axis += 1
            gaps += first is not None
            continue
        if first is None:
            first = len(around)
        elif gaps:
            first = 0  # indices that are apart: their axes come first
        mask = sig.dtype in _MASKS
        sizes = [call.count_of(ref)] if mask else list(sizes_of(sig))
        axis += len(sig.shape) if mask else 1
        both = [*[1] * (len(sizes) - len(chosen)), *chosen]
        own = [*[1] * (len(chosen) - len(sizes)), *sizes]
        chosen = [one if other == 1 else other for one, other in zip(both, own, strict=True)]
    around += x[axis:]
    place = first or 0
    wanted = [*around[:place], *chosen, *around[place:]]
    for size, other in zip(reversed(values), reversed(wanted), strict=False):
        if size not in (1, other):
            raise call.refuse(
                "values of another size than that of the places, which follows from values"
            )


def _by_places(call: BoundedStep, x: ResultSig) -> tuple[list[Any], list[Any], Any]:
    """Indices with places for masks, for each which of it is no padding, and a mask's count."""
    indices: list[Any] = []
    inside: list[Any] = []
    count = None
    for one, sig in zip(call.args[1], call.sigs[1], strict=True):
        axis = len(indices)
        if one is None:
            indices.append(None)
            inside.append(None)
        elif one.dtype in (jnp.bool_, jnp.uint8):
            places, count = _places(call, one, sig)
            here = jnp.arange(one.size) < count
            indices += places
            inside += [here] * len(places)
        else:
            size = bound_at(x, axis)
            if size is not None:
                # From the end of what is there.
                one = jnp.where(one < 0, one + call.value(size), one)
            indices.append(one)
            inside.append(call.inside(sig))
    return indices, inside, count


@bounded("masked_scatter.default", "masked_scatter_backward.default")
def masked_scatter(call: BoundedStep) -> Any:
    """The mask chooses as many as there are, from the front."""
    for place, sig in call.arrays():
        if sig.bounded and (place < 2 or any(size is not None for size in sig.bounded[1:])):
            raise call.refuse("sizes that follow from values")
    return call.plain(sizes=True)


@bounded("index_select.default", "gather.default")
def gather(call: BoundedStep) -> Any:
    """Places are in front of the padding."""
    call.fill(0, 2)
    return call.plain()


@bounded("embedding.default")
def embedding(call: BoundedStep) -> Any:
    """Rows of a table."""
    call.fill(0, 1)
    return call.plain()


@bounded("embedding_dense_backward.default")
def embedding_backward(call: BoundedStep) -> Any:
    """The padding adds nothing to the first row."""
    if len(call.args) > 4 and call.args[4]:
        raise call.refuse("how often a row is taken follows from values")
    call.fill(0)
    return call.plain()


@bounded("index_add.default", "scatter_add.default")
def added(call: BoundedStep) -> Any:
    """The padding adds nothing to the first place."""
    call.fill(0, 2, 3)
    _same_rows(call, call.sigs[2], call.sigs[3])
    return call.plain()


def _same_rows(call: BoundedStep, places: ResultSig, values: ResultSig) -> None:
    """Sums go by the places that are there, of as many values."""
    axis = axis_of(call.args[1], values)
    at = axis if len(places.shape) == len(values.shape) else 0
    if not places.shape or not values.shape:
        return
    if sizes_of(places)[at] != sizes_of(values)[axis]:
        raise call.refuse("sizes that follow from values and are not alike")


@bounded("_unique2.default", "unique_consecutive.default")
def unique(call: BoundedStep) -> Any:
    """Different values, in order or as they come."""
    (_, sig) = next(call.arrays())
    consecutive = call.step.op.startswith("unique_consecutive")
    if sig.bounded:
        raise call.refuse("values whose number follows from values")
    if consecutive and len(call.args) > 3 and call.args[3] is not None:
        raise call.refuse("along an axis")
    values, places, often = call.results
    flat = call.args[0].ravel()
    order = jnp.arange(flat.size) if consecutive else jnp.argsort(flat, stable=True)
    along = flat[order]
    # NaN is another one each time, as for torch.
    first = jnp.concatenate([jnp.ones(min(flat.size, 1), bool), along[1:] != along[:-1]])
    group = jnp.cumsum(first) - 1
    call.counts(bound_at(values, 0), jnp.sum(first, dtype=jnp.int64))
    (starts,) = jnp.nonzero(first, size=flat.size, fill_value=0)
    inverse = jnp.zeros(flat.size, jnp.int64).at[order].set(group)
    many = jnp.zeros(flat.size, jnp.int64).at[group].add(1)
    return (
        along[starts],
        _or_nothing(inverse, places),
        _or_nothing(many, often),
    )


def _or_nothing(found: Any, sig: ResultSig) -> Any:
    """What was not asked for has no elements."""
    if found.size != math.prod(sig.shape):
        return jnp.zeros(sig.shape, dtype_of(sig.dtype))
    return found.reshape(sig.shape).astype(dtype_of(sig.dtype))
