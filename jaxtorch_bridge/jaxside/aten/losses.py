"""Gradients of losses and activations that torch does not take apart."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .registry import Out, lowers

_NONE, _MEAN = 0, 1


@lowers("multi_margin_loss_backward.default")
def multi_margin_loss_backward(
    out: Out,
    cotangent: Any,
    x: Any,
    target: Any,
    p: Any,
    margin: Any,
    weight: Any = None,
    reduction: int = _MEAN,
) -> Any:
    """Each class that comes too near to the wanted one pushes both apart."""
    rows, wanted = x.reshape(-1, x.shape[-1]), jnp.atleast_1d(target)[:, None]
    count = rows.shape[1] * (rows.shape[0] if reduction == _MEAN else 1)
    near = margin - jnp.take_along_axis(rows, wanted, axis=1) + rows
    push = (near > 0).astype(x.dtype) if p == 1 else 2 * near * (near > 0)
    if weight is not None:
        push = push * weight[wanted]
    is_wanted = jnp.arange(rows.shape[1]) == wanted
    push = jnp.where(is_wanted, 0, push / count)
    found = jnp.where(is_wanted, -push.sum(axis=1, keepdims=True), push)
    scale = cotangent.reshape(-1, 1) if reduction == _NONE else cotangent
    return (found * scale).reshape(x.shape).astype(out.dtype)


@lowers("multilabel_margin_loss_backward.default")
def multilabel_margin_loss_backward(
    out: Out, cotangent: Any, x: Any, target: Any, reduction: int, is_target: Any
) -> Any:
    """The same for several wanted classes, which end before the first negative number."""
    rows, wanted = x.reshape(-1, x.shape[-1]), target.reshape(-1, x.shape[-1])
    others = is_target.reshape(rows.shape) == 0
    count = rows.shape[1] * (rows.shape[0] if reduction == _MEAN else 1)
    counts = jnp.cumprod(wanted >= 0, axis=1) == 1
    places = jnp.maximum(wanted, 0)
    # Wanted ones along the second axis, others along the last.
    near = 1 - jnp.take_along_axis(rows, places, axis=1)[:, :, None] + rows[:, None, :]
    push = (near > 0) & counts[:, :, None] & others[:, None, :]
    push = push.astype(x.dtype) / count
    at = jnp.arange(rows.shape[0])[:, None]
    found = push.sum(axis=1).at[at, places].add(-push.sum(axis=2))
    scale = cotangent.reshape(-1, 1) if reduction == _NONE else cotangent
    return (found * scale).reshape(x.shape).astype(out.dtype)


@lowers("rrelu_with_noise_backward.default")
def rrelu_backward(
    out: Out,
    cotangent: Any,
    x: Any,
    noise: Any,
    lower: float,
    upper: float,
    training: bool,
    self_is_result: bool,
) -> Any:
    """By the slopes that were drawn, if any were."""
    if training and upper - lower > 1e-6:
        return cotangent * noise
    slope = jnp.asarray((lower + upper) / 2, cotangent.dtype)
    return jnp.where(x > 0, cotangent, cotangent * slope)
