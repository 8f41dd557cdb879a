"""The usage that the interface of wrap-torch2jax promises, each beside torch's own result."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import BridgeWarning
from jaxtorch_bridge.compat import Size, dtype_t2j, t2j, torch2jax, torch2jax_with_vjp

SHAPE = (10, 2)


def add(a, b):
    return a + b


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def tensor(array, grad=False):
    return torch.from_numpy(np.array(array)).requires_grad_(grad)


def struct(x):
    return jax.ShapeDtypeStruct(x.shape, dtype_t2j(x.dtype))


a, b = torch.randn(SHAPE), torch.randn(SHAPE)
WAYS = {
    "tensors": lambda: torch2jax(add, a, b),
    "tensors and Size": lambda: torch2jax(add, a, b, output_shapes=Size(a.shape)),
    "shapes": lambda: torch2jax(add, struct(a), struct(b), output_shapes=struct(a)),
    "arrays": lambda: torch2jax(add, t2j(a), t2j(b)),
    "numpy": lambda: torch2jax(add, a.numpy(), b.numpy(), output_shapes=a),
}


@pytest.mark.parametrize("way", WAYS)
def test_eager_jit_and_gradients_for_every_kind_of_example(way):
    wrapped = WAYS[way]()
    x, y = random(*SHAPE), random(*SHAPE, seed=1)
    assert_equal(wrapped(x, y), x + y)
    assert_equal(jax.jit(wrapped)(x, y), x + y)
    ga, gb = jax.grad(lambda a, b: jnp.sum(wrapped(a, b)), argnums=(0, 1))(x, y)
    assert_equal(ga, np.ones(SHAPE))
    assert_equal(gb, np.ones(SHAPE))


def test_multiple_outputs():
    def function(a, b):
        generator = torch.Generator().manual_seed(0)
        weight = torch.empty(20, 2).uniform_(generator=generator)
        return a + b, torch.norm(a), (a * b) @ weight.T

    wrapped = torch2jax(function, a, b, output_shapes=(Size(SHAPE), Size([]), Size((10, 20))))
    x, y = random(*SHAPE), random(*SHAPE, seed=1)
    expected = function(tensor(x), tensor(y))
    for results in (wrapped(x, y), jax.jit(wrapped)(x, y)):
        assert type(results) is tuple
        for mine, theirs in zip(results, expected, strict=True):
            assert_close(mine, theirs)


# Torch 2.13 cannot move a module that is made without values, so the function is run instead.
@pytest.mark.filterwarnings("ignore:.*could not be found abstractly")
@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_a_layer_made_inside_of_the_function():
    def function(a, b):
        layer = torch.nn.Linear(2, 20).to(a)
        return a + b, torch.norm(a), layer(a * b)

    wrapped = torch2jax(function, a, b)
    x, y = random(*SHAPE), random(*SHAPE, seed=1)
    for total, norm, drawn in (wrapped(x, y), jax.jit(wrapped)(x, y)):
        assert_close(total, x + y)
        assert_close(norm, np.linalg.norm(x))
        assert drawn.shape == (10, 20)


def test_mse_gradients_eager_and_under_jit():
    def loss(a, b):
        return torch.nn.MSELoss()(a, b)

    wrapped = torch2jax(loss, torch.randn(6), torch.randn(6))
    gradient = jax.grad(wrapped, argnums=(0, 1))
    x, y = random(6), random(6, seed=1)
    xt, yt = tensor(x, grad=True), tensor(y, grad=True)
    loss(xt, yt).backward()
    for g in (gradient(x, y), jax.jit(gradient)(x, y)):
        assert_close(g[0], xt.grad)
        assert_close(g[1], yt.grad)


@pytest.mark.parametrize("vmap_method", ["sequential", "torch_vmap"])
def test_hessian_by_two_jacobians_and_by_jax_hessian(vmap_method):
    def energy(x):
        return (torch.tanh(x) ** 3).sum() + x[0] * x[1] ** 2

    wrapped = torch2jax(energy, torch.randn(3), vmap_method=vmap_method)
    x = random(3)
    expected = torch.autograd.functional.hessian(energy, tensor(x))
    for hessian in (jax.jacobian(jax.jacobian(wrapped)), jax.hessian(wrapped)):
        assert_close(hessian(x), expected)
        assert_close(jax.jit(hessian)(x), expected)


def test_changing_shapes_are_planned_quietly():
    wrapped = torch2jax(lambda a, b: (a * b).sum(0), torch.randn(10), torch.randn(10))
    gradient = jax.grad(lambda x, y: wrapped(x, y))
    for _ in range(2):
        for size in (20, 10, 3):
            x, y = random(size), random(size, seed=1)
            assert_close(wrapped(x, y), x @ y)
            assert_close(gradient(x, y), y)


def test_changing_shapes_are_told_once_each_where_outputs_were_declared():
    wrapped = torch2jax(lambda x: {"y": x * 2}, torch.ones(3), output_shapes=[Size((3,))])
    with pytest.warns(BridgeWarning, match=r"output_shapes was declared .*float32\[5\]") as told:
        shapes = [wrapped(jnp.ones(5))[0].shape for _ in range(2)]
    assert shapes == [(5,), (5,)]
    assert len(told) == 1
    assert told[0].filename == __file__
    with pytest.warns(BridgeWarning, match=r"float32\[6\]"):
        wrapped(jnp.ones(6))
    assert [y.shape for y in wrapped(jnp.ones(3))] == [(3,)]


def test_wrapping_inside_jit():
    @jax.jit
    def compute(a, b, c):
        d = torch2jax(add, struct(a), struct(b), output_shapes=struct(a))(a, b)
        e = torch2jax(lambda a, b: a * b, a, b, output_shapes=a)(a, b)
        return d * e - c

    x, y = random(*SHAPE), random(*SHAPE, seed=1)
    with jax.checking_leaks():
        assert_close(compute(x, y, x), (x + y) * x * y - x)
    gradient = jax.jit(jax.grad(lambda x: compute(x, y, y).sum()))(x)
    assert_close(gradient, 2 * x * y + y**2)


def test_the_old_name_says_what_the_new_one_is():
    with pytest.warns(DeprecationWarning, match="old name of torch2jax"):
        wrapped = torch2jax_with_vjp(add, a, b, depth=1)
    assert wrapped(random(*SHAPE), random(*SHAPE)).shape == SHAPE


def test_nothing_warns_in_everyday_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped = torch2jax(torch.nn.Linear(3, 2), torch.randn(4, 3))
        assert jax.jit(wrapped)(jnp.ones((5, 3))).shape == (5, 2)
