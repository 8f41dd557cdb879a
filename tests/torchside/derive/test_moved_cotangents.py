"""Large gradients go to XLA's buffers one by one, and torch never holds all of them."""

from __future__ import annotations

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.op.results_in_place import _WORTHWHILE_BYTES_AS_FOUND

pytestmark = pytest.mark.derivatives

SIZE = _WORTHWHILE_BYTES_AS_FOUND // 4
X = jnp.asarray(np.random.default_rng(0).standard_normal(SIZE), jnp.float32)


class Watched(torch.autograd.Function):
    """Twice its argument; notes how many of its gradients are alive."""

    alive: list = []
    most = 0

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        found = g * 2
        Watched.alive.append(weakref.ref(found.untyped_storage()))
        return found


def test_no_more_than_a_few_are_alive_at_once(monkeypatch):
    monkeypatch.setattr(Watched, "alive", [])
    counts = []

    class Counting(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            gc.collect()
            counts.append(sum(one() is not None for one in Watched.alive))
            return g.clone()

    def function(*xs):
        total = torch.zeros(SIZE)
        for x in xs:
            # The engine goes back through one chain after the other.
            total = Counting.apply(total + Watched.apply(x) * total.sum().sin())
        return total.sum()

    arrays = [X + i for i in range(8)]
    wrapped = jax_callable(function)
    found = jax.jit(jax.grad(wrapped, tuple(range(8))))(*arrays)
    tensors = [torch.tensor(np.asarray(a), requires_grad=True) for a in arrays]
    wanted = torch.autograd.grad(function(*tensors), tensors)
    assert_close(list(found), list(wanted))
    assert len(Watched.alive) == 16
    assert max(counts[:8]) <= 2


def gradients(function, *arrays):
    wrapped = jax_callable(function)
    wrapped(*arrays)
    by = tuple(range(len(arrays)))
    call = jax.jit(jax.grad(lambda *xs: wrapped(*xs).sum(), by))
    tensors = [torch.tensor(np.asarray(a), requires_grad=True) for a in arrays]
    wanted = torch.autograd.grad(function(*tensors).sum(), tensors, allow_unused=True)
    for _ in range(3):
        for mine, theirs in zip(call(*arrays), wanted, strict=True):
            assert_close(mine, np.zeros_like(mine) if theirs is None else theirs)


def own_hook(x, y):
    if x.requires_grad:
        x.register_hook(lambda g: g * 3)
    return x * y


class Expanded(torch.autograd.Function):
    """Gives a gradient without memory of its own for each element."""

    @staticmethod
    def forward(ctx, x):
        return x.sum()

    @staticmethod
    def backward(ctx, g):
        return g.expand(SIZE)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x.sin(),
        lambda x, y: x,
        lambda x, y: x * x + y * x.exp(),
        own_hook,
        lambda x, y: Expanded.apply(x) + Expanded.apply(y),
        lambda x, y: (x + y) if float(x.detach()[0]) > -1e9 else x,
        lambda x, y: x.flip(0) * y.view(2, -1).T.reshape(-1),
    ],
    ids=["unused", "itself", "twice", "own hook", "expanded", "looks at values", "permuted"],
)
def test_they_are_torchs(function):
    gradients(function, X, X[::-1] + 1)


def test_one_array_for_two_arguments_and_a_pullback_called_twice():
    wrapped = jax_callable(lambda x, y: x.sin() * y)
    _, pull = jax.vjp(wrapped, X, X)
    first = pull(jnp.ones(SIZE))
    second = pull(jnp.ones(SIZE))
    assert_close(list(first), [np.cos(X) * X, np.sin(X)])
    assert_equal(list(first), list(second))


def test_cotangents_of_complex_arguments():
    z = X[: SIZE // 2] + 1j * X[SIZE // 2 :]
    wrapped = jax_callable(lambda z: (z * z.conj() * z).abs())
    twin = jax.grad(lambda z: jnp.abs(z * z.conj() * z).sum())(z)
    assert_close(jax.grad(lambda z: wrapped(z).sum())(z), twin, factor=4)


def test_a_batch_of_cotangents():
    x = X[:64]
    wrapped = jax_callable(lambda x: torch.outer(x, x).sin().sum(1))
    found = jax.jit(jax.jacrev(wrapped))(x)
    assert_close(found, jax.jacrev(lambda x: jnp.sin(jnp.outer(x, x)).sum(1))(x), factor=4)


def test_a_contract_can_say_that_all_are_copied():
    spec = {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "inputs": {"x": "float32[n]"},
        "outputs": {"y": "float32[n]"},
        "execution": {"outputs": "copy"},
    }
    wrapped = jax_callable(lambda x: x.sin(), spec=spec)
    assert_close(jax.grad(lambda x: wrapped(x).sum())(X), np.cos(X))
