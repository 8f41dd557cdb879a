"""Softmax, and normalisation of layers, groups and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .registry import CannotLowerError, Out, computed_in, lowers


@lowers("_softmax.default", "_safe_softmax.default")
def softmax(out: Out, x: Any, dim: int, half_to_float: Any = False) -> Any:
    """Narrow floats are computed in float32."""
    if not x.size:
        return jnp.zeros(out.shape, out.dtype)
    wide = x.astype(computed_in(x.dtype))
    return (jax.nn.softmax(wide, axis=dim) if x.ndim else jnp.ones_like(wide)).astype(out.dtype)


@lowers("_log_softmax.default")
def log_softmax(out: Out, x: Any, dim: int, half_to_float: bool = False) -> Any:
    """Narrow floats are computed in float32."""
    if not x.size:
        return jnp.zeros(out.shape, out.dtype)
    wide = x.astype(computed_in(x.dtype))
    found = jax.nn.log_softmax(wide, axis=dim) if x.ndim else jnp.zeros_like(wide)
    return found.astype(out.dtype)


@lowers("native_layer_norm.default")
def native_layer_norm(
    outs: Sequence[Out], x: Any, shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> Any:
    """The result, and mean and reciprocal deviation, in float32 at least."""
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    wide = x.astype(computed_in(x.dtype))
    centre = jnp.mean(wide, axis=axes, keepdims=True)
    apart = wide - centre
    scale = lax.rsqrt(jnp.mean(apart * apart, axis=axes, keepdims=True) + eps)
    found = apart * scale
    if weight is not None:
        found = found * weight
    if bias is not None:
        found = found + bias
    return (
        found.astype(outs[0].dtype),
        centre.astype(outs[1].dtype).reshape(outs[1].shape),
        scale.astype(outs[2].dtype).reshape(outs[2].shape),
    )


@lowers("native_group_norm.default")
def native_group_norm(
    outs: Sequence[Out],
    x: Any,
    weight: Any,
    bias: Any,
    count: int,
    channels: int,
    size: int,
    groups: int,
    eps: float,
) -> Any:
    """The same for groups of channels."""
    wide = x.astype(computed_in(x.dtype)).reshape(count, groups, -1)
    centre = jnp.mean(wide, axis=2, keepdims=True)
    apart = wide - centre
    scale = lax.rsqrt(jnp.mean(apart * apart, axis=2, keepdims=True) + eps)
    found = (apart * scale).reshape(x.shape)
    per_channel = (1, channels) + (1,) * (x.ndim - 2)
    if weight is not None:
        found = found * weight.reshape(per_channel)
    if bias is not None:
        found = found + bias.reshape(per_channel)
    return (
        found.astype(outs[0].dtype),
        centre[..., 0].astype(outs[1].dtype),
        scale[..., 0].astype(outs[2].dtype),
    )


def _normed(x: Any, weight: Any, bias: Any, centre: Any, scale: Any, dtype: Any) -> Any:
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    found = (x.astype(computed_in(x.dtype)) - centre.reshape(per_channel)) * scale.reshape(
        per_channel
    )
    if weight is not None:
        found = found * weight.reshape(per_channel)
    if bias is not None:
        found = found + bias.reshape(per_channel)
    return found.astype(dtype)


@lowers("_native_batch_norm_legit_no_training.default")
def batch_norm_no_training(
    outs: Sequence[Out],
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    momentum: float,
    eps: float,
) -> Any:
    """By the running statistics; nothing is kept for a backward."""
    wide = computed_in(x.dtype)
    centre, scale = running_mean.astype(wide), lax.rsqrt(running_var.astype(wide) + eps)
    found = _normed(x, weight, bias, centre, scale, outs[0].dtype)
    return found, *(jnp.zeros(one.shape, one.dtype) for one in outs[1:])


@lowers(
    "_native_batch_norm_legit_functional.default",
    "_native_batch_norm_legit.no_stats",
    "native_batch_norm.default",
)
def batch_norm(outs: Sequence[Out], x: Any, weight: Any, bias: Any, *rest: Any) -> Any:
    """By the batch's own statistics in training, which update the running ones."""
    stats = rest[:-3]
    training, momentum, eps = rest[-3:]
    running_mean, running_var = stats or (None, None)
    axes = (0, *range(2, x.ndim))
    wide = x.astype(computed_in(x.dtype))
    if training:
        centre = jnp.mean(wide, axis=axes)
        apart = wide - centre.reshape((1, -1) + (1,) * (x.ndim - 2))
        variance = jnp.mean(apart * apart, axis=axes)
    else:
        centre, variance = running_mean.astype(wide.dtype), running_var.astype(wide.dtype)
    scale = lax.rsqrt(variance + eps)
    found = _normed(x, weight, bias, centre, scale, outs[0].dtype)
    kept = [centre, scale] if training else [jnp.zeros(one.shape) for one in outs[1:3]]
    given = [one.astype(out.dtype) for one, out in zip(kept, outs[1:3], strict=True)]
    if len(outs) == 3:
        if training and running_mean is not None:
            # It writes to them, as its schema does not say.
            raise CannotLowerError("running statistics that it updates in place")
        return found, *given
    if not training:
        kept = [running_mean, running_var]
        return (
            found,
            *given,
            *(one.astype(out.dtype) for one, out in zip(kept, outs[3:], strict=True)),
        )
    count = x.size // x.shape[1]
    unbiased = variance * (count / max(count - 1, 1))
    updated = [
        (old * (1 - momentum) + new.astype(old.dtype) * momentum).astype(old.dtype)
        for old, new in ((running_mean, centre), (running_var, unbiased))
    ]
    # In half precision torch says that they are wider than they were.
    updated = [one.astype(out.dtype) for one, out in zip(updated, outs[3:], strict=True)]
    return found, *given, *updated
