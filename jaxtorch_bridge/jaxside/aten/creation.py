"""Operations that make arrays of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .registry import Out, lowers


def _filled(names: str, value: Callable[[tuple[Any, ...]], Any]) -> None:
    def lower(out: Out, *args: Any, **_: Any) -> Any:
        return jnp.full(out.shape, value(args), out.dtype)

    lowers(*names.split())(lower)


_filled(
    "zeros.default zeros_like.default new_zeros.default _efficientzerotensor.default "
    "_new_zeros_with_same_feature_meta.default",
    lambda args: 0,
)
_filled("ones.default ones_like.default new_ones.default", lambda args: 1)
_filled("full.default full_like.default new_full.default fill.Scalar", lambda args: args[-1])
# What nobody has written to may be anything, and zeros as well.
_filled(
    "empty.memory_format empty_like.default new_empty.default empty_strided.default "
    "new_empty_strided.default empty_permuted.default",
    lambda args: 0,
)


@lowers("scalar_tensor.default")
def scalar_tensor(out: Out, value: Any, dtype: Any = None) -> Any:
    """One number."""
    return jnp.asarray(value, out.dtype)


@lowers("fill.Tensor")
def fill(out: Out, x: Any, value: Any) -> Any:
    """One value everywhere."""
    return jnp.broadcast_to(value.astype(out.dtype), out.shape)


@lowers("arange.default", "arange.start", "arange.start_step")
def arange(out: Out, *args: Any, dtype: Any = None) -> Any:
    """Each is computed of its place, and nothing adds up."""
    start = args[0] if len(args) > 1 else 0
    step = args[2] if len(args) > 2 else 1
    places = jnp.arange(out.shape[0], dtype=jnp.int64)
    if jnp.issubdtype(out.dtype, jnp.integer):
        return (int(start) + places * int(step)).astype(out.dtype)
    return (start + places.astype(jnp.float64) * step).astype(out.dtype)


@lowers("eye.default", "eye.m")
def eye(out: Out, *args: Any, dtype: Any = None) -> Any:
    """Ones on the diagonal."""
    rows, columns = out.shape
    return jnp.eye(rows, columns, dtype=out.dtype)


@lowers("tril_indices.default")
def tril_indices(out: Out, row: int, col: int, offset: int = 0, dtype: Any = None) -> Any:
    """Places on and below a diagonal."""
    return jnp.stack(jnp.tril_indices(row, offset, col)).astype(out.dtype)


@lowers("triu_indices.default")
def triu_indices(out: Out, row: int, col: int, offset: int = 0, dtype: Any = None) -> Any:
    """Places on and above a diagonal."""
    return jnp.stack(jnp.triu_indices(row, offset, col)).astype(out.dtype)
