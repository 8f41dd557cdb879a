"""Fused attention on CUDA, whose kernels have layouts and seeds of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from gpu_arrays import normal, same, tensor_of

from jaxtorch_bridge import jax_callable

pytestmark = pytest.mark.gpu

F = torch.nn.functional
TOLERANCE = {"float32": 2e-3, "bfloat16": 5e-2, "float16": 1e-2}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


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
    for one, other in zip(found, expected, strict=True):
        scale = float(other.abs().max())
        difference = np.abs(np.asarray(one, np.float32) - other.cpu().numpy()).max()
        assert difference <= TOLERANCE[dtype] * scale


@dtypes
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_gradients(gpu, dtype, jit):
    args = heads(dtype, 2, 4, 64, 64)
    wrapped = jax_callable(attention)
    gradient = jax.grad(loss(wrapped), (0, 1, 2))
    found = (jax.jit(gradient) if jit else gradient)(*args)
    near(found, gradients_of(attention, args), dtype)
    assert "saved residuals" in wrapped.explain(*args)


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
    np.testing.assert_array_equal(jax.jit(lambda k, key: wrapped(q, k, v, rng=key))(k, key), y)
    # Linear in v: the gradient by v, times v, is the result again.
    slope = jax.jit(jax.grad(lambda v: (wrapped(q, k, v, rng=key) * y).sum()))(v)
    np.testing.assert_allclose((slope * v).sum(), (y * y).sum(), rtol=1e-3)
    same(wrapped(q, k, v, rng=key), y, rtol=0, atol=0)
