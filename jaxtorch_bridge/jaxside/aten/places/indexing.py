"""Operations whose places are values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..batches import before_axis, before_indices, lowers_batches, of_indices, of_result
from ..registry import CannotLowerError, Out


def _where(x: Any, indices: Sequence[Any]) -> tuple[Any, ...]:
    """Indices as numpy has them; JAX, as torch does not, counts from the end by itself."""
    found = []
    for index in indices:
        if index is None:
            found.append(slice(None))
        elif index.dtype == jnp.bool_:
            raise CannotLowerError("a mask, whose number of places follows from values")
        else:
            found.append(index)
    return tuple(found)


@lowers_batches(before_indices, "index.Tensor", "_unsafe_index.Tensor")
def index_tensor(out: Out, x: Any, indices: Sequence[Any]) -> Any:
    """As numpy's, of integers."""
    return x[_where(x, indices)]


@lowers_batches(before_indices, "index_put.default", "_unsafe_index_put.default")
def index_put(
    out: Out, x: Any, indices: Sequence[Any], values: Any, accumulate: bool = False
) -> Any:
    """Set, or added to; a mask of the whole is a choice."""
    given = [one for one in indices if one is not None]
    if len(given) == 1 and given[0].dtype == jnp.bool_ and values.ndim == 0:
        return _put_masked(x, indices, values, accumulate)
    where = _where(x, indices)
    return put(x, where, values.astype(x.dtype), "add" if accumulate else "set")


# A sum of booleans is whether one of them is true, a product whether all are.
_OF_BOOLEANS = {"add": "max", "multiply": "min"}


def put(x: Any, where: Any, values: Any, how: str, **options: Any) -> Any:
    """Values set, or put together with what is there; see `jax.numpy.ndarray.at`."""
    how = _OF_BOOLEANS.get(how, how) if x.dtype == jnp.bool_ else how
    return getattr(x.at[where], how)(values, **options)


def _put_masked(x: Any, indices: Sequence[Any], value: Any, accumulate: bool) -> Any:
    at = next(place for place, one in enumerate(indices) if one is not None)
    mask = indices[at]
    shape = (1,) * at + mask.shape + (1,) * (x.ndim - at - mask.ndim)
    value = value.astype(x.dtype)
    return jnp.where(mask.reshape(shape), x + value if accumulate else value, x)


@lowers_batches(of_indices, "embedding.default")
def embedding(
    out: Out,
    weight: Any,
    indices: Any,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """Rows of a table."""
    return weight[indices]


@lowers_batches(before_axis, "index_select.default")
def index_select(out: Out, x: Any, dim: int, index: Any) -> Any:
    """Places along an axis."""
    if not x.ndim:
        return x
    return jnp.take(x, jnp.atleast_1d(index), axis=dim, mode="fill")


@lowers_batches(before_axis, "gather.default")
def gather(out: Out, x: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
    """One place along an axis for each element."""
    if not x.ndim:
        return jnp.broadcast_to(x, out.shape)
    if not index.ndim:
        return x.reshape(-1)[index]
    return x[along(x, dim, index)]


def along(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    """The places of one element along an axis for each element of an index."""
    grids = np.indices(index.shape, sparse=True)
    return tuple(index if axis == dim % x.ndim else grids[axis] for axis in range(x.ndim))


@lowers_batches(before_axis, "scatter.src")
def scatter(out: Out, x: Any, dim: int, index: Any, source: Any) -> Any:
    """Each element put somewhere along an axis."""
    return _scattered(x, dim, index, source, "set")


@lowers_batches(before_axis, "scatter.value")
def scatter_value(out: Out, x: Any, dim: int, index: Any, value: Any) -> Any:
    """One value put there."""
    return _scattered(x, dim, index, jnp.full(index.shape, value, x.dtype), "set")


@lowers_batches(before_axis, "scatter_add.default")
def scatter_add(out: Out, x: Any, dim: int, index: Any, source: Any) -> Any:
    """Each element added somewhere along an axis."""
    return _scattered(x, dim, index, source, "add")


def _scattered(x: Any, dim: int, index: Any, source: Any, how: str) -> Any:
    flat = x.reshape(1) if not x.ndim else x
    places = index.reshape(1) if not index.ndim else index
    values = source.reshape(1) if not source.ndim else source
    if not places.size:
        return x
    values = values[tuple(slice(0, size) for size in places.shape)].astype(x.dtype)
    found = put(flat, along(flat, dim, places), values, how)
    return found.reshape(x.shape)


@lowers_batches(before_axis, "index_add.default")
def index_add(out: Out, x: Any, dim: int, index: Any, source: Any, alpha: Any = 1) -> Any:
    """Slices added along an axis."""
    if not x.ndim:
        return x + (source * jnp.asarray(alpha, x.dtype)).sum().astype(x.dtype)
    where = (slice(None),) * (dim % x.ndim) + (jnp.atleast_1d(index),)
    return put(x, where, (source * jnp.asarray(alpha, x.dtype)).astype(x.dtype), "add")


@lowers_batches(of_result, "masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(out: Out, x: Any, mask: Any, value: Any) -> Any:
    """One value where the mask is set."""
    return jnp.where(mask, jnp.asarray(value).astype(x.dtype), x)
