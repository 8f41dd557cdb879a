"""Fourier transforms, with pocketfft's words for norms: 0 none, 1 by the root, 2 by the number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ..registry import Out, lowers


def _scaled(x: Any, count: int, normalization: int) -> Any:
    if normalization == 0:
        return x
    return x / (math.sqrt(count) if normalization == 1 else count)


@lowers("_fft_c2c.default")
def fft_c2c(out: Out, x: Any, dim: Sequence[int], normalization: int, forward: bool) -> Any:
    """Complex to complex."""
    if not dim:
        return x
    count = math.prod(x.shape[axis] for axis in dim)
    found = jnp.fft.fftn(x, axes=dim) if forward else jnp.fft.ifftn(x, axes=dim) * count
    return _scaled(found, count, normalization).astype(out.dtype)


@lowers("_fft_r2c.default")
def fft_r2c(out: Out, x: Any, dim: Sequence[int], normalization: int, onesided: bool) -> Any:
    """Real to complex; the last of the axes is the one that is halved."""
    count = math.prod(x.shape[axis] for axis in dim)
    found = jnp.fft.rfftn(x, axes=dim) if onesided else jnp.fft.fftn(x, axes=dim)
    return _scaled(found, count, normalization).astype(out.dtype)


@lowers("_fft_c2r.default")
def fft_c2r(out: Out, x: Any, dim: Sequence[int], normalization: int, last_dim_size: int) -> Any:
    """Complex to real, backwards."""
    count = math.prod(out.shape[axis] for axis in dim)
    for axis in dim[:-1]:
        x = jnp.fft.ifft(x, axis=axis) * x.shape[axis]
    found = jnp.fft.irfft(x, n=last_dim_size, axis=dim[-1]) * last_dim_size
    return _scaled(found, count, normalization).astype(out.dtype)
