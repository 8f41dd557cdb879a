"""Fused attention on CUDA, whose kernels have layouts and seeds of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close, assert_equal
from gpu_arrays import normal, tensor_of
from jaxtorch_bridge import jax_callable

pytestmark = pytest.mark.gpu

F = torch.nn.functional
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])


def attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def loss(function):
    return lambda *args: (function(*args).astype("float32") ** 2).sum()


def heads(dtype, *shape):
    return [normal(*shape, seed=seed).astype(dtype) for seed in range(3)]


def gradients_of(function, args):
    """In torch, from float32 copies and without fused kernels."""
    tensors = [tensor_of(a.astype("float32")).requires_grad_() for a in args]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (function(*tensors) ** 2).sum().backward()
    return [tensor.grad for tensor in tensors]


def near(found, expected, dtype):
    # Products of float32 may be taken in TF32, which has the digits of float16.
    lowest, factor = ("float16", 0.4) if dtype == "float32" else (dtype, 2)
    for one, other in zip(found, expected, strict=True):
        assert_close(one.astype("float32"), other, factor=factor, computed_in=lowest)


@dtypes
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_gradients(gpu, dtype, jit):
    args = heads(dtype, 2, 4, 64, 64)
    wrapped = jax_callable(attention)
    gradient = jax.grad(loss(wrapped), (0, 1, 2))
    found = (jax.jit(gradient) if jit else gradient)(*args)
    near(found, gradients_of(attention, args), dtype)
    assert "tape: " in wrapped.explain(*args)


@dtypes
@pytest.mark.parametrize("axis", range(5))
def test_a_batch_along_any_axis(gpu, dtype, axis):
    args = heads(dtype, 2, 4, 32, 32)
    batches = [jnp.stack([a, a * 0.5, a + 1], axis) for a in args]
    wrapped = jax_callable(attention)
    gradient = jax.vmap(jax.grad(loss(wrapped), (0, 1, 2)), axis, axis)
    found = jax.jit(gradient)(*batches)
    for element in range(3):
        one = [jnp.take(b, element, axis) for b in batches]
        mine = [jnp.take(g, element, axis) for g in found]
        near(mine, gradients_of(attention, one), dtype)


def test_a_layer_in_training(gpu):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True).cuda()
    x = normal(4, 16, 64)
    found = jax.jit(jax.grad(lambda x: (jax_callable(layer)(x) ** 2).sum()))(x)
    tensor = tensor_of(x).requires_grad_()
    (layer(tensor) ** 2).sum().backward()
    near([found], [tensor.grad], "float32")


def test_dropout_by_a_key(gpu):
    """The backward drops what the forward dropped."""
    wrapped = jax_callable(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5), random="key"
    )
    q, k, v = heads("float32", 2, 4, 32, 32)
    key = jax.random.key(0)
    y = wrapped(q, k, v, rng=key)
    assert_equal(jax.jit(lambda k, key: wrapped(q, k, v, rng=key))(k, key), y)
    # Linear in v: the gradient by v, times v, is the result again.
    slope = jax.jit(jax.grad(lambda v: (wrapped(q, k, v, rng=key) * y).sum()))(v)
    assert_close((slope * v).sum(), (y * y).sum(), computed_in="float16")
    assert_equal(wrapped(q, k, v, rng=key), y)
