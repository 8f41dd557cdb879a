"""Distances of points by p-norms, with their gradients, which are 0 where points are the same."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..registry import Out, lowers


def _length(apart: Any, p: float) -> Any:
    """Along the last axis."""
    size = jnp.abs(apart)
    if not apart.shape[-1]:
        return jnp.zeros(apart.shape[:-1], apart.dtype)
    if p == 0:
        return (size != 0).sum(axis=-1).astype(apart.dtype)
    if p == 1:
        return size.sum(axis=-1)
    if p == 2:
        return jnp.sqrt((size * size).sum(axis=-1))
    if math.isinf(p):
        return size.max(axis=-1)
    return jnp.power(jnp.power(size, p).sum(axis=-1), 1 / p)


def _slope(apart: Any, length: Any, cotangent: Any, p: float) -> Any:
    """The gradient by what is apart; lengths and cotangents have a last axis of one."""
    if p == 0:
        return jnp.zeros_like(apart)
    sign, size = jnp.sign(apart), jnp.abs(apart)
    if p == 1:
        return cotangent * sign
    if math.isinf(p):
        return jnp.where(size == length, cotangent * sign, 0)
    nothing = (length == 0) | ((apart == 0) if p < 2 else False)
    if p == 2:
        return jnp.where(nothing, 0, cotangent * apart / length)
    share = jnp.power(size, p - 1) / jnp.power(length, p - 1)
    return jnp.where(nothing, 0, cotangent * sign * share)


@lowers("_cdist_forward.default")
def cdist(out: Out, a: Any, b: Any, p: float, compute_mode: Any = None) -> Any:
    """Of each point to each; never by a product, which loses digits."""
    return _length(a[..., :, None, :] - b[..., None, :, :], p).astype(out.dtype)


@lowers("_cdist_backward.default")
def cdist_backward(out: Out, cotangent: Any, a: Any, b: Any, p: float, lengths: Any) -> Any:
    """By the first points."""
    apart = a[..., :, None, :] - b[..., None, :, :]
    found = _slope(apart, lengths[..., None], cotangent[..., None], p).sum(axis=-2)
    return jnp.broadcast_to(found, out.shape)


def _pairs(x: Any) -> tuple[Any, Any]:
    return np.triu_indices(x.shape[0], 1)


@lowers("_pdist_forward.default")
def pdist(out: Out, x: Any, p: float = 2.0) -> Any:
    """Of each point to those behind it."""
    first, second = _pairs(x)
    return _length(x[first] - x[second], p)


@lowers("_pdist_backward.default")
def pdist_backward(out: Out, cotangent: Any, x: Any, p: float, lengths: Any) -> Any:
    """By both points of each pair."""
    first, second = _pairs(x)
    share = _slope(x[first] - x[second], lengths[:, None], cotangent[:, None], p)
    return jnp.zeros(out.shape, out.dtype).at[first].add(share).at[second].add(-share)
