"""Random numbers of ``backend="xla"``: by JAX's keys, as torch distributes them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import distributions
from torch.nn import functional as F

from comparing import assert_close, assert_equal, is_close
from jaxtorch_bridge import PlanningError, from_module, jax_callable

BOTH = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
KEY = jax.random.key(3)


def is_same(found, other):
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(other), strict=True)
    return all(is_close(*pair) for pair in leaves)


def drawing(function):
    return jax_callable(function, backend="xla", random="key")


def dropped(x):
    return F.dropout(x, 0.4) * x + F.dropout(x, 0.4)


@BOTH
def test_a_key_decides(jit):
    call, x = drawing(dropped), jnp.ones((20, 30))
    run = jit(lambda x, key: call(x, rng=key))
    assert_equal(run(x, KEY), call(x, rng=KEY))
    assert not is_same(run(x, KEY), run(x, jax.random.key(4)))


def test_two_draws_of_a_call_differ():
    one, other = drawing(lambda x: (torch.rand_like(x), torch.rand_like(x)))(jnp.ones(9), rng=KEY)
    assert not is_same(one, other)


@BOTH
def test_derivatives_draw_what_the_call_drew(jit):
    call, x = drawing(lambda x: F.dropout(x, 0.4) * x), jnp.full((20, 30), 2.0)
    value, slope = jit(jax.value_and_grad(lambda x: call(x, rng=KEY).sum()))(x)
    kept = call(x, rng=KEY)
    assert_close(value, kept.sum())
    assert_close(slope, kept)  # that of x * x is 2 x, and here x is 2
    _, tangent = jit(lambda x: jax.jvp(lambda x: call(x, rng=KEY), (x,), (x,)))(x)
    assert_close(tangent, 2 * kept)
    row = x[0]
    second = jit(jax.hessian(lambda x: call(x, rng=KEY).sum()))(row)
    assert_close(second, jnp.diag(call(row, rng=KEY) / 2))


def test_a_checkpoint_draws_it_again():
    call, x = drawing(dropped), jnp.ones((20, 30))
    loss = lambda f: jax.grad(lambda x: (f(x) ** 2).sum())  # noqa: E731
    plain = loss(lambda x: call(x, rng=KEY))(x)
    assert_close(loss(jax.checkpoint(lambda x: call(x, rng=KEY)))(x), plain)


@BOTH
def test_batches(jit):
    call, x = drawing(dropped), jnp.ones((4, 50))
    # One key: each element draws what it draws alone.
    found = jit(jax.vmap(lambda x: call(x, rng=KEY)))(x)
    assert_equal(found, jnp.stack([call(row, rng=KEY) for row in x]))
    keys = jax.random.split(KEY, 4)
    found = jit(jax.vmap(lambda x, key: call(x, rng=key)))(x, keys)
    assert_equal(found, jnp.stack([call(row, rng=key) for row, key in zip(x, keys, strict=True)]))
    slopes = jax.vmap(jax.grad(lambda x, key: call(x, rng=key).sum()))
    slope = jax.grad(lambda x, key: call(x, rng=key).sum())
    want = [slope(*one) for one in zip(x, keys, strict=True)]
    assert_close(jit(slopes)(x, keys), jnp.stack(want))


def test_other_kinds_of_keys():
    call, x = drawing(dropped), jnp.ones((20, 30))
    one = call(x, rng=jax.random.key(0, impl="rbg"))
    other = call(x, rng=jax.random.key(1, impl="rbg"))
    assert not is_same(one, other)


def test_a_module_in_training():
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True)
    taken = from_module(layer.train(), backend="xla")
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 8)), jnp.float32)
    step = jax.jit(jax.grad(lambda p, key: (taken(p, x, rng=key) ** 2).sum()))
    one, again, other = (
        step(taken.params, KEY),
        step(taken.params, KEY),
        step(taken.params, jax.random.key(9)),
    )
    assert_equal(one, again)
    assert not is_same(one, other)


ONES = torch.ones(20_000)
# What draws 20,000 numbers of one distribution.
DISTRIBUTIONS = {
    "rand": lambda x: torch.rand(20_000),
    "rand_like": lambda x: torch.rand_like(x),
    "randn": lambda x: torch.randn(20_000),
    "randn_like": lambda x: torch.randn_like(x),
    "randint": lambda x: torch.randint(3, 9, (20_000,)),
    "randint_like": lambda x: torch.randint_like(x, 7),
    "random_": lambda x: x.clone().random_(6),
    "normal_": lambda x: x.clone().normal_(1.0, 3.0),
    "normal": lambda x: torch.normal(x, 2 * x),
    "normal by a number": lambda x: torch.normal(x, 0.5),
    "uniform_": lambda x: x.clone().uniform_(2.0, 5.0),
    "bernoulli": lambda x: torch.bernoulli(0.3 * x),
    "bernoulli_": lambda x: x.clone().bernoulli_(0.7),
    "exponential_": lambda x: x.clone().exponential_(2.0),
    "geometric_": lambda x: x.clone().geometric_(0.4),
    "log_normal_": lambda x: x.clone().log_normal_(0.1, 0.4),
    "poisson": lambda x: torch.poisson(4 * x),
    "binomial": lambda x: torch.binomial(10 * x, 0.3 * x),
    "dropout": lambda x: F.dropout(x, 0.2),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.2, training=True),
    "rrelu": lambda x: F.rrelu(-x, 0.1, 0.3, training=True),
    "multinomial": lambda x: torch.multinomial(
        torch.tensor([0.1, 0.2, 0.7]), 20_000, replacement=True
    ),
    "gamma": lambda x: distributions.Gamma(2 * x, 3 * x, validate_args=False).sample(),
    "beta": lambda x: distributions.Beta(2 * x, 3 * x, validate_args=False).sample(),
    "dirichlet": lambda x: torch._sample_dirichlet(x.reshape(-1, 4))[:, 0].repeat(4),
    "categorical": lambda x: distributions.Categorical(
        probs=torch.stack([x, 3 * x], -1), validate_args=False
    ).sample(),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions_are_torchs(name):
    function = DISTRIBUTIONS[name]
    torch.manual_seed(0)
    want = function(ONES).double().numpy()
    found = np.asarray(drawing(function)(jnp.ones(20_000), rng=KEY), np.float64)
    assert found.shape == want.shape
    # Within six standard errors each: both are drawn.
    error = want.std() / np.sqrt(want.size) + 1e-9
    assert abs(found.mean() - want.mean()) < 9 * error
    fourth = ((want - want.mean()) ** 4).mean()
    error = np.sqrt(max(fourth - want.var() ** 2, 0.0) / want.size) + 1e-9
    assert abs(found.var() - want.var()) < 12 * error
    for part in (0.1, 0.5, 0.9):
        least, greatest = (np.quantile(want, part + by) for by in (-0.02, 0.02))
        assert least - 1e-6 <= np.quantile(found, part) <= greatest + 1e-6
    assert abs((found == 0).mean() - (want == 0).mean()) < 0.02


def test_a_permutation():
    found = drawing(lambda x: torch.randperm(50))(jnp.ones(3), rng=KEY)
    assert_equal(jnp.sort(found), jnp.arange(50, dtype=found.dtype))
    assert not is_same(found, jnp.arange(50))


def test_draws_without_putting_back():
    def function(x):
        return torch.multinomial(x.expand(5_000, 4), 2)

    found = np.asarray(drawing(function)(jnp.asarray([0.1, 0.2, 0.0, 0.7]), rng=KEY))
    assert (found[:, 0] != found[:, 1]).all()
    assert not (found == 2).any()
    torch.manual_seed(0)
    want = function(torch.tensor([0.1, 0.2, 0.0, 0.7])).numpy()
    for place in (0, 1):
        shares = [np.bincount(one[:, place], minlength=4) / 5_000 for one in (found, want)]
        assert np.abs(shares[0] - shares[1]).max() < 0.04


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_uniform_numbers_are_below_one(dtype):
    found = drawing(lambda x: torch.rand_like(x))(jnp.ones(200_000, dtype), rng=KEY)
    assert found.dtype == dtype
    assert float(found.max()) < 1


def test_by_torchs_own_derivative():
    """The derivative by a distribution's parameters goes through the draw."""

    def function(x):
        return distributions.Normal(x, x.exp(), validate_args=False).rsample()

    call, x = drawing(function), jnp.asarray([0.5, -1.0])
    slope = jax.jit(jax.grad(lambda x: call(x, rng=KEY).sum()))(x)
    assert_close(slope, 1 + (call(x, rng=KEY) - x))


@BOTH
def test_without_a_key(jit):
    call = jit(jax_callable(lambda x: F.dropout(x, 0.5), backend="xla"))
    with (
        pytest.warns(UserWarning, match="nothing declares them"),
        pytest.raises(PlanningError, match=r"draws from torch's generators.*`random: key`"),
    ):
        call(jnp.ones(3))


def test_a_generator_of_the_functions_own():
    call = drawing(lambda x: x * torch.rand(3, generator=torch.Generator().manual_seed(3)))
    with pytest.raises(PlanningError, match=r"it makes a generator\. Say `eager`"):
        call(jnp.ones(3), rng=KEY)


def test_a_seed_that_the_function_sets():
    def seeded(x):
        torch.manual_seed(5)
        return x * torch.rand(3)

    with pytest.raises(PlanningError, match=r"it seeds torch's generator\. Say `eager`"):
        drawing(seeded)(jnp.ones(3), rng=KEY)


def test_nothing_is_dropped_without_one():
    call = jax_callable(lambda x: F.dropout(x, 0.5, training=False), backend="xla")
    assert_equal(call(jnp.ones(3)), jnp.ones(3))


def test_explained():
    words = drawing(dropped).explain(jnp.ones(3), rng=KEY)
    assert "other numbers than torch's, of the same distributions" in words
