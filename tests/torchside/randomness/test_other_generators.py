"""Random numbers that are not drawn from torch's global generator as it stands.

Numbers of Python and numpy, generators that a function closes over, and seeds that it sets: a
captured graph would keep them or know nothing of them, and a repeated run would draw others.
"""

from __future__ import annotations

import random

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
    pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once for each element"),
    pytest.mark.filterwarnings("ignore:.*draws random numbers, and nothing declares"),
]

X = jnp.array([0.5, -1.0, 2.0])
WAYS = [lambda f: f, jax.jit]


class Noise(torch.nn.Module):
    """Keeps generators as attributes."""

    def __init__(self):
        super().__init__()
        self.torch = torch.Generator()
        self.python = [random.Random(0)]

    def forward(self, x):
        scale = 1 + self.python[0].random()
        return scale * x * torch.rand(x.shape, generator=self.torch, dtype=x.dtype)


PYTHON, NUMPY, OLD_NUMPY = random.Random(1), np.random.default_rng(2), np.random.RandomState(3)
TORCH, MODULE = torch.Generator().manual_seed(4), Noise()


def drop_path(x):
    """Stochastic depth as it is often written, with numbers that torch does not see."""
    return x * 3 if random.random() < 0.5 else x * (1 + random.gauss(0, 1))


def looks_at_values(x):
    """The same in a function that cannot be traced."""
    return drop_path(x) if float(x.detach().sum()) > -1e9 else x


DRAWING = {
    "python": (drop_path, "Python's `random`"),
    "numpy": (lambda x: x * float(np.random.normal()), "`numpy.random`"),
    "numpy_normals": (
        lambda x: x * torch.as_tensor(np.random.randn(3), dtype=x.dtype),
        "`numpy.random`",
    ),
    "python_object": (lambda x: x * PYTHON.gauss(0, 1), "a `Random`"),
    "numpy_object": (lambda x: x * NUMPY.normal(), "a `Generator`"),
    "old_numpy_object": (lambda x: x * OLD_NUMPY.normal(), "a `RandomState`"),
    "attributes": (MODULE, "a `Random`"),
    "untraced": (looks_at_values, ""),
}
OF_TORCH = {
    "torch_object": lambda x: x * torch.rand(x.shape, generator=TORCH, dtype=x.dtype),
    "both": lambda x: (
        torch.dropout(x, 0.5, True) * torch.rand(x.shape, generator=TORCH, dtype=x.dtype)
    ),
}
ALL = {**{name: function for name, (function, _) in DRAWING.items()}, **OF_TORCH}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("jit", WAYS, ids=["eager", "jit"])
def test_value_and_derivative_are_of_one_draw(name, jit):
    # All of these multiply by what they draw, so that the value tells the derivative.
    f = jax_callable(ALL[name], name=name)
    reverse = jit(jax.value_and_grad(lambda x: f(x).sum()))
    forward = jit(lambda x: jax.jvp(f, (x,), (x,)))
    linear = jit(lambda x: (lambda value, push: (value, push(x)))(*jax.linearize(f, x)))
    values = set()
    for _ in range(3):
        value, gradient = reverse(X)
        assert_close(value, (gradient * X).sum())
        for both in (forward(X), linear(X)):
            assert_close(*both)
        values.add(float(value))
    # The one case of two possible values is the most likely to repeat itself.
    assert len(values) > 1 or name in ("python", "untraced")


@pytest.mark.parametrize("name", ALL)
def test_second_order_is_of_one_draw(name):
    f = jax_callable(ALL[name], name=name)

    @jax.jit
    def both(x):
        def half_square(x):
            y = f(x)
            return (y**2).sum() / 2, y

        def along(x):
            gradient, y = jax.grad(half_square, has_aux=True)(x)
            return gradient @ x, y

        return jax.grad(along, has_aux=True)(x)

    for _ in range(2):
        twice, y = both(X)
        assert_close(twice, 2 * y**2 / X)


@pytest.mark.parametrize("name", ["python", "numpy_object", "torch_object", "untraced"])
def test_under_checkpoint_value_and_gradient_are_of_one_draw(name):
    f = jax_callable(ALL[name], name=name)
    step = jax.jit(jax.value_and_grad(jax.checkpoint(lambda x: f(x).sum())))
    for _ in range(3):
        value, gradient = step(X)
        assert_close(value, (gradient * X).sum())


@pytest.mark.parametrize("name", ["python", "numpy"])
def test_each_element_of_a_batch_has_a_draw_of_its_own(name):
    f = jax_callable(ALL[name], name=name)
    random.seed(0)
    batch = jnp.broadcast_to(X, (8, 3))
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda x: f(x).sum())))(batch)
    assert_close(values, (gradients * X).sum(1))
    assert len(set(map(float, values))) > 1


@pytest.mark.parametrize("name", [name for name, (_, words) in DRAWING.items() if words])
def test_explain_says_from_where(name):
    function, words = DRAWING[name]
    f = jax_callable(function, name=name)
    jax.grad(lambda x: f(x).sum())(X)
    text = f.explain(X)
    assert f"random       it draws from {words}" in text
    assert "by x: tape: the function runs once, and torch keeps what autograd saves" in text
    # A graph would not draw.
    spec = {
        "schema": "jaxtorch/1", "name": "drawing", "version": "1.0.0", "residuals": "recompute",
        "inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"},
    }  # fmt: skip
    again = jax_callable(function, spec=spec)
    jax.grad(lambda x: again(x).sum())(X)
    text = again.explain(X)
    assert "by x: recompute with torch.autograd.grad" in text
    assert "not tape: the contract says `residuals: recompute`" in text


def test_planning_leaves_all_generators_as_they_were():
    def states():
        old = np.random.get_state(legacy=False)["state"]
        return (
            random.getstate(),
            (old["pos"], *old["key"]),
            PYTHON.getstate(),
            NUMPY.bit_generator.state,
            TORCH.get_state().tolist(),
            torch.get_rng_state().tolist(),
        )

    def draws_everywhere(x):
        torch.manual_seed(3)
        scale = random.random() + np.random.rand() + PYTHON.random() + NUMPY.random()
        return scale * x * torch.rand(3, generator=TORCH) * torch.rand(3)

    before = states()
    jax.jit(jax_callable(draws_everywhere)).trace(X)
    assert states() == before


def own_seed(x):
    torch.manual_seed(0)
    return x * torch.rand(x.shape, dtype=x.dtype)


def forked(x):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return x * torch.rand(x.shape, dtype=x.dtype)


def own_generator(x):
    generator = torch.Generator().manual_seed(0)
    return x * torch.rand(x.shape, dtype=x.dtype, generator=generator)


@pytest.mark.parametrize("function", [own_seed, forked, own_generator])
@pytest.mark.parametrize("jit", WAYS, ids=["eager", "jit"])
def test_a_function_that_seeds_itself_has_the_derivative_of_that_seed(function, jit):
    f = jax_callable(function)
    mask = f(jnp.ones(3))
    step = jit(jax.value_and_grad(lambda x: f(x).sum()))
    twice = jit(jax.jacfwd(jax.grad(lambda x: (f(x) ** 2).sum())))
    for _ in range(3):
        torch.rand(1)
        value, gradient = step(X)
        assert_close(gradient, mask)
        assert_close(value, (mask * X).sum())
        assert_close(jnp.diagonal(twice(X)), 2 * mask**2)


def test_a_generator_as_a_static_argument_goes_on_from_call_to_call():
    f = jax_callable(lambda x, generator: x * torch.rand(3, generator=generator))
    generator = torch.Generator().manual_seed(0)
    wanted = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    for row in wanted:
        value, pull = jax.vjp(lambda x: f(x, generator=generator), jnp.ones(3))
        assert_equal(value, row.numpy())
        assert_equal(pull(jnp.ones(3))[0], row.numpy())


def test_a_backward_leaves_the_generators_where_the_forward_did():
    f = jax_callable(drop_path)
    random.seed(5)
    drop_path(torch.ones(3))
    wanted = random.random()
    random.seed(5)
    jax.value_and_grad(lambda x: f(x).sum())(X)
    assert random.random() == wanted
