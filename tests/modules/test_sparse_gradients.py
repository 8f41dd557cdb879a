"""Gradients that torch gives as sparse tensors come back dense."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import from_module, j2t, jax_callable

IDS = jnp.array([[1, 3, 1], [0, 3, 3]], jnp.int32)
WEIGHT = jnp.linspace(-1, 1, 10).reshape(5, 2)


def expected(weight):
    leaf = j2t(weight).clone().requires_grad_()
    ids = torch.tensor(IDS.tolist())
    (torch.nn.functional.embedding(ids, leaf).exp()).sum().backward()
    return leaf.grad


@pytest.mark.parametrize("jitted", [False, True])
class TestSparse:
    def test_by_an_argument(self, jitted):
        f = jax_callable(lambda ids, w: torch.nn.functional.embedding(ids, w, sparse=True).exp())
        grad = jax.grad(lambda w: f(IDS, w).sum())
        for _ in range(2):
            assert_close((jax.jit(grad) if jitted else grad)(WEIGHT), expected(WEIGHT))

    @pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
    def test_by_an_argument_of_a_function_that_looks_at_values(self, jitted):
        def look_up(ids, w):
            if int(ids.max()) > 100:
                return w[0]
            return torch.nn.functional.embedding(ids, w, sparse=True).exp()

        f = jax_callable(look_up)
        f(IDS, WEIGHT)  # shows what it returns
        grad = jax.grad(lambda w: f(IDS, w).sum())
        assert_close((jax.jit(grad) if jitted else grad)(WEIGHT), expected(WEIGHT))

    @pytest.mark.parametrize("train", [False, True])
    def test_by_parameters(self, jitted, train):
        net = from_module(torch.nn.Embedding(5, 2, sparse=True))
        grad = jax.grad(lambda p: jnp.exp(net.apply(p, IDS, train=train)).sum())
        params = {"weight": WEIGHT}
        for _ in range(2):
            assert_close((jax.jit(grad) if jitted else grad)(params)["weight"], expected(WEIGHT))

    def test_beside_a_dense_use_of_the_same_weight(self, jitted):
        class Tied(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.table = torch.nn.Embedding(5, 2, sparse=True)

            def forward(self, ids):
                return self.table(ids) @ self.table.weight.T

        module = Tied()
        net = from_module(module)
        grad = jax.grad(lambda p: (net.apply(p, IDS) ** 2).sum())
        found = (jax.jit(grad) if jitted else grad)(net.params)["table"]["weight"]
        (module(torch.tensor(IDS.tolist())) ** 2).sum().backward()
        assert_close(found, module.table.weight.grad)

    @pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")  # one by one
    def test_batches_of_gradients(self, jitted):
        f = jax_callable(lambda ids, w: torch.nn.functional.embedding(ids, w, sparse=True).exp())
        grad = jax.vmap(jax.grad(lambda w: f(IDS, w).sum()))
        weights = jnp.stack([WEIGHT, 2 * WEIGHT])
        want = torch.stack([expected(weight) for weight in weights])
        assert_close((jax.jit(grad) if jitted else grad)(weights), want)
