"""Functions that read values of tensors that they close over: a graph would keep the old ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable

pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:.*the torch function was run (once|twice) more"),
]

X = jnp.array([0.5, -1.0, 2.0])


class Scaled(torch.nn.Module):
    """Multiplies by a buffer, read in one way or another."""

    def __init__(self, read):
        super().__init__()
        self.read = read
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return x * self.read(self.scale)


READS = {
    "item": lambda scale: scale.item(),
    "float of a product": lambda scale: float(scale * 2) / 2,
    "branch": lambda scale: 2.0 if scale < 3 else 5.0,
    "numpy": lambda scale: float(scale.numpy()),
    "asarray": lambda scale: float(np.asarray(scale)),
    "numpy of a sum": lambda scale: (scale + 0).numpy().item(),
    "tolist": lambda scale: scale.tolist(),
    "dlpack": lambda scale: float(np.from_dlpack(scale)),
}


@pytest.mark.parametrize("name", READS)
def test_derivatives_read_what_the_value_reads(name):
    module = Scaled(READS[name])
    f = jax_callable(module, name="scaled")
    value = jax.jit(f)
    slope = jax.jit(jax.grad(lambda x: f(x).sum()))
    tangent = jax.jit(lambda x: jax.jvp(f, (x,), (jnp.ones(3),))[1])
    for scale in (2.0, 5.0):
        module.scale.fill_(scale)
        assert_close(value(X), scale * X)
        for derivative in (slope, tangent, jax.grad(lambda x: f(x).sum())):
            assert_close(derivative(X), np.full(3, scale))


DERIVED = {
    "product": lambda scale: (scale * 2 + 1).exp(),
    "branchless": lambda scale: torch.where(scale < 3, 2.0, 5.0),
    "cast": lambda scale: scale.to(torch.float64).to(torch.float32).clone(),
    "view": lambda scale: scale.view(1).expand(3),
}


@pytest.mark.parametrize("name", DERIVED)
def test_what_is_computed_of_them_is_part_of_the_graph(name):
    module = Scaled(DERIVED[name])
    f = jax_callable(module, name="scaled")
    slope = jax.jit(jax.grad(lambda x: f(x).sum()))
    for scale in (2.0, 5.0):
        module.scale.fill_(scale)
        assert_close(slope(X), f(jnp.ones(3)))
    assert f.plan(X).inference.traced


def test_numbers_that_the_function_makes_itself_may_be_read():
    f = jax_callable(lambda x: x * torch.tensor(2.0).item() * torch.tensor([3.0]).sum().item())
    assert_close(jax.jit(jax.grad(lambda x: f(x).sum()))(X), np.full(3, 6.0))
    assert f.plan(X).inference.traced


def test_a_result_that_depends_on_nothing_has_a_zero_gradient():
    """As long as another result is recorded, which shows that nothing went wrong."""
    constant = torch.ones(3)

    def two(x):
        return (x.sin() if float(x.detach().sum()) > 0 else x.cos()), constant * 2

    wrapped = jax_callable(two)
    wrapped(X)
    for run in (lambda f: f, jax.jit):
        assert_equal(run(jax.grad(lambda x: wrapped(x)[1].sum()))(X), jnp.zeros(3))
        assert_close(run(jax.grad(lambda x: wrapped(x)[0].sum()))(X), jnp.cos(X))
