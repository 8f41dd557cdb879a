"""Dropout in modules: a function of the key, and of nothing else."""

from __future__ import annotations

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from comparing import assert_close, assert_equal
from jaxtorch_bridge import ArgumentError, from_module
from jaxtorch_bridge.bridges import equinox as equinox_bridge
from jaxtorch_bridge.bridges import linen as linen_bridge
from jaxtorch_bridge.bridges import nnx as nnx_bridge

X = jnp.ones((4, 64))
KEYS = jax.random.split(jax.random.key(0), 2)


class Dropped(torch.nn.Module):
    """Takes any keyword, as models of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(64)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x, **kwargs):
        assert not kwargs
        return self.drop(x * self.norm.weight)


def test_the_result_is_a_function_of_the_key():
    net = from_module(Dropped())
    one = net.apply(net.params, X, rng=KEYS[0])
    assert 0.2 < float((one == 0).mean()) < 0.8
    torch.rand(3)  # torch's own generator plays no part
    assert_equal(net.apply(net.params, X, rng=KEYS[0]), one)
    assert_equal(jax.jit(net.apply)(net.params, X, rng=KEYS[0]), one)
    assert (net.apply(net.params, X, rng=KEYS[1]) != one).any()


def test_two_calls_with_two_keys_stay_two_and_the_backward_drops_the_same():
    net = from_module(Dropped())
    ones = jax.tree.map(jnp.ones_like, net.params)

    @jax.jit
    def both(params):
        return [net.apply(params, X, rng=KEYS[index]) for index in range(2)]

    first, second = both(ones)
    assert (first != second).any()
    grads = jax.jit(jax.grad(lambda p: net.apply(p, X, rng=KEYS[0]).sum()))(ones)
    assert_close(grads["norm"]["weight"], first.sum(0))


def test_a_batch_of_keys_draws_for_each():
    net = from_module(Dropped())
    batch = jax.vmap(lambda key: net.apply(net.params, X, rng=key))(KEYS)
    assert (batch[0] != batch[1]).any()


def test_buffers_and_a_key_together():
    class Both(Dropped):
        def forward(self, x):
            return self.drop(self.norm(x))

    net = from_module(Both())
    x = jax.random.normal(KEYS[1], (4, 64))
    result, buffers = net.apply(net.params, x, buffers=net.buffers, rng=KEYS[0], train=True)
    assert_close(buffers["norm"]["running_mean"], 0.1 * x.mean(0))
    assert (np.asarray(result) == 0).mean() > 0.2


def test_what_is_no_key_is_refused():
    net = from_module(Dropped())
    with pytest.raises(ArgumentError, match="expected one JAX key"):
        net.apply(net.params, X, rng=3)


def test_keys_of_the_libraries():
    net = from_module(Dropped())
    expected = net.apply(net.params, X, rng=KEYS[0])
    model = equinox_bridge.TorchModule(net, inference=False)
    assert_equal(model(X, key=KEYS[0]), expected)
    assert_equal(eqx.nn.inference_mode(model)(X), X)

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return linen_bridge.TorchModule(net)(x, train=train)

    variables = Model().init(jax.random.key(0), X, train=False)
    runs = [Model().apply(variables, X, train=True, rngs={"dropout": key}) for key in KEYS]
    assert (runs[0] != runs[1]).any()

    drops = nnx_bridge.TorchModule(net, rngs=nnx.Rngs(dropout=0))
    drops.train()
    assert (drops(X) != drops(X)).any()  # another key in each call
    drops.eval()
    assert_equal(drops(X), X)
