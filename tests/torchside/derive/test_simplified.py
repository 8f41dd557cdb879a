"""Forward and backward graphs from which work is taken that changes no result."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads
from torch.nn import functional as F

from comparing import assert_close, assert_equal
from jaxtorch_bridge import from_module, jax_callable
from jaxtorch_bridge._compat import torch_graphs

X = jax.random.normal(jax.random.key(0), (6, 8))


def kept_bytes(wrapped, *args) -> int:
    """Bytes of residuals, as `explain` says."""
    found = re.search(r"saved residuals, (\d+) bytes", wrapped.explain(*args))
    assert found is not None
    return int(found[1])


def check_gradient(function, *args) -> None:
    """`jax.grad` against torch's own gradients, bit by bit."""
    wrapped = jax_callable(function)
    numbers = range(len(args))
    found = jax.jit(jax.grad(lambda *args: wrapped(*args).sum(), argnums=tuple(numbers)))(*args)
    tensors = [torch.tensor(np.asarray(arg), requires_grad=True) for arg in args]
    wanted = torch.autograd.grad(function(*tensors).sum(), tensors)
    for one, other in zip(found, wanted, strict=True):
        assert_equal(one, other.numpy())


def test_dropout_that_drops_nothing_saves_nothing_of_its_own():
    plain = jax_callable(lambda x: torch.relu(x).sin())
    dropping = jax_callable(lambda x: F.dropout(torch.relu(x), 0.0, training=True).sin())
    for wrapped in (plain, dropping):
        jax.jit(jax.grad(lambda x, wrapped=wrapped: wrapped(x).sum())).lower(X)
    assert kept_bytes(dropping, X) == kept_bytes(plain, X) == X.nbytes
    check_gradient(lambda x: F.dropout(torch.relu(x), 0.0, training=True).sin(), X)


def test_parts_of_one_tensor_travel_as_the_tensor():
    """Queries, keys and values of one product: three views of one residual."""

    def attention(x, w):
        q, k, v = (x @ w).view(6, 3, 4).unbind(1)
        return (torch.softmax(q @ k.T, -1) @ v).cos()

    w = jax.random.normal(jax.random.key(1), (8, 12))
    wrapped = jax_callable(attention)
    jax.jit(jax.grad(lambda x: wrapped(x, w).sum())).lower(X)
    # The product (6, 12), the weights (6, 6), the result (6, 4).
    assert kept_bytes(wrapped, X, w) == 4 * (72 + 36 + 24)
    check_gradient(attention, X, w)
    # Of a batch, too, the parts are taken as views; by rows, forwards and of second order.
    rows = jax.random.normal(jax.random.key(2), (3, 6, 8))
    batched = jax.vmap(jax.grad(lambda x: wrapped(x, w).sum()))(rows)
    for row, one in zip(rows, batched, strict=True):
        assert_close(one, jax.grad(lambda x: wrapped(x, w).sum())(row))
    check_grads(lambda x: wrapped(x, w).sum(), (X,), order=2, rtol=1e-2, atol=1e-2)


def test_a_small_part_does_not_take_the_whole_with_it():
    def head(x):
        y = torch.exp(x)
        return y[0].sin() + y[1].sin()

    wrapped = jax_callable(head)
    jax.jit(jax.grad(lambda x: wrapped(x).sum())).lower(X)
    # The exponential's own derivative reads all of it, the sines two rows.
    assert kept_bytes(wrapped, X) == X.nbytes

    def linear_head(x, w):
        y = x * 2
        return (y[0] * w).sum() + (y[1] * w).sum()

    wrapped = jax_callable(linear_head)
    w = jnp.arange(8.0)
    jax.jit(jax.grad(lambda w: wrapped(X, w))).lower(w)
    assert kept_bytes(wrapped, X, w) <= X.nbytes


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2), (1,), (0, 0, 1, 2)])
def test_gradients_of_slices_are_those_of_torch(order, axis):
    x = jax.random.normal(jax.random.key(3), (3, 3, 4) if axis != -1 else (2, 4, 3))

    def function(x):
        total = x.sum() * 0
        for index in order:
            total = total + (x.select(axis, index) * (index + 1)).sin().sum()
        return total

    check_gradient(function, x)


def test_a_slice_of_slices():
    def function(x):
        rows = x.unbind(0)
        return sum((row.unbind(0)[0] * row.unbind(0)[1]).sum() for row in rows)

    check_gradient(function, jax.random.normal(jax.random.key(4), (3, 2, 4)))


def test_slices_of_two_dtypes_are_added_as_torch_adds_them():
    def function(x):
        first, second = x.unbind(0)
        return first.sin().sum() + second.double().cos().sum().float()

    check_gradient(function, X[:2])


def test_the_packed_projection_is_one_stack():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    graphs = []

    def watch(graph, original=torch_graphs.remove_dead_code):
        original(graph)
        graphs.append(str(graph))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_graphs, "remove_dead_code", watch)
        model = from_module(layer)
        jax.jit(jax.grad(lambda p: model.apply(p, X[None]).sum())).lower(model.params)
    assert any("aten.stack" in graph for graph in graphs)
    assert "select_backward" not in graphs[-1]


class TestWrites:
    """A copy that is there because something is written to afterwards."""

    def test_of_the_argument(self):
        def function(x):
            kept = x.clone()
            y = x * 2
            y.add_(kept)
            kept.mul_(3)
            return y + kept

        check_gradient(function, X)

    def test_of_what_is_returned(self):
        wrapped = jax_callable(lambda x: (x.clone(), x.sin().clone(), x.sin()))
        (first, *_), pull = jax.vjp(wrapped, X)
        assert_equal(first, X)
        (gradient,) = pull((jnp.ones_like(X), jnp.ones_like(X), jnp.ones_like(X)))
        assert_close(gradient, 1 + 2 * jnp.cos(X))

    def test_running_statistics_of_the_caller_stay(self):
        """Batch norm writes to its statistics, which its schema does not say."""
        norm = torch.nn.BatchNorm1d(8)

        def function(x, mean, var):
            mean, var = mean.clone(), var.clone()
            y = F.batch_norm(x, mean, var, norm.weight, norm.bias, training=True)
            return (y * mean).sum() + var.sum()

        mean, var = jnp.zeros(8) + 0.5, jnp.ones(8) * 2
        wrapped = jax_callable(function)
        jax.jit(jax.value_and_grad(wrapped))(X, mean, var)
        assert_equal(mean, 0.5)
        assert_equal(var, 2)
        tensors = [torch.tensor(np.asarray(a)) for a in (X, mean, var)]
        tensors[0].requires_grad_()
        (wanted,) = torch.autograd.grad(function(*tensors), tensors[0])
        assert_close(jax.grad(wrapped)(X, mean, var), wanted)


class TestPlacesInMemory:
    """Ops to which it matters where in its memory a tensor begins, as a copy begins anew."""

    def test_strided_views(self):
        def function(x):
            kept = x[3:].clone().as_strided((4,), (2,), 1)
            return kept.exp().sum() + x.sin()[1:].clone().as_strided((3,), (2,), 0).exp().sum()

        check_gradient(function, X.reshape(-1))

    def test_views_of_another_dtype(self):
        def function(x):
            pairs = torch.view_as_complex(x.sin()[1:5].clone().view(2, 2))
            words = x.detach()[1:5].clone().view(torch.float64)
            return (pairs * pairs).real.sum() + (x.sum() * (words == 0).sum())

        check_gradient(function, X.reshape(-1))
