"""Dtypes as torch promotes and converts them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .registry import limits_of


def is_kind(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind, ``jnp.floating`` and the like."""
    return bool(jnp.issubdtype(dtype, kind))


def to_dtype(value: Any, dtype: Any) -> Any:
    """An array, or a number, as an array of a dtype."""
    if isinstance(value, jax.Array | np.ndarray):
        return _cast(value, dtype)
    return (
        jnp.asarray(value).astype(dtype) if _is_outside(value, dtype) else jnp.asarray(value, dtype)
    )


def _is_outside(value: Any, dtype: Any) -> bool:
    """Whether a number has to be wrapped, which numpy refuses to do silently."""
    if isinstance(value, bool) or not isinstance(value, int) or not is_kind(dtype, jnp.integer):
        return False
    least, greatest = limits_of(dtype)
    return not least <= value <= greatest


def common_dtype(*values: Any) -> Any:
    """The dtype in which torch compares: of arrays before numbers, of kinds before widths."""
    arrays = [one for one in values if isinstance(one, jax.Array | np.ndarray)]
    ranked = [one for one in arrays if one.ndim] or arrays
    dtypes = [one.dtype for one in ranked]
    found = dtypes[0]
    for dtype in dtypes[1:]:
        found = jnp.promote_types(found, dtype)
    for one in values:
        if isinstance(one, complex) and not is_kind(found, jnp.complexfloating):
            found = jnp.promote_types(found, jnp.complex64)
        elif isinstance(one, float) and not is_kind(found, jnp.inexact):
            found = np.dtype(jnp.float32)
        elif isinstance(one, int) and not isinstance(one, bool) and found == jnp.bool_:
            found = np.dtype(jnp.int64)
        elif isinstance(one, jax.Array) and _kind(one.dtype) > _kind(found):
            # Of another kind, without axes.
            found = jnp.promote_types(found, one.dtype)
    return found


def _kind(dtype: Any) -> int:
    if dtype == jnp.bool_:
        return 0
    if is_kind(dtype, jnp.integer):
        return 1
    return 2 if is_kind(dtype, jnp.floating) else 3


def converted(x: Any, dtype: Any) -> Any:
    """An array in another dtype: the real part of what is complex, whether it is zero.

    Batched graphs have numbers in the places of arrays without axes.
    """
    x = jnp.asarray(x)
    if x.dtype == dtype:
        return x
    if is_kind(x.dtype, jnp.complexfloating) and not is_kind(dtype, jnp.complexfloating):
        x = jnp.real(x)
    if dtype == jnp.bool_:
        return x != 0
    return _cast(x, dtype)


def _cast(x: Any, dtype: Any) -> Any:
    if x.dtype == jnp.bool_ and is_kind(dtype, jnp.inexact):
        # Of a product with a converted boolean XLA makes a selection, in which NaN times False and
        # infinity times False are 0.
        return jnp.where(x, jnp.ones((), dtype), jnp.zeros((), dtype))
    return x.astype(dtype)
