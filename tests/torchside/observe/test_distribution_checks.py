"""Distributions whose checks look at values: planned without them, in the planning thread alone."""

import threading

import jax
import jax.numpy as jnp
import pytest
import torch
from torch.distributions import Distribution

from comparing import assert_close
from jaxtorch_bridge import jax_callable

DATA = torch.tensor([0.5, -1.0, 2.0])
FAILURES = (jax.errors.JaxRuntimeError, ValueError)
WORDS = "without the checks of torch.distributions"


@pytest.fixture(autouse=True)
def checks():
    """On, as torch has it: its compiler turns them off when another test first compiles."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(True)
    yield
    assert vars(Distribution)["_validate_args"] is True
    Distribution.set_default_validate_args(before)


def likelihood(m, s):
    return torch.distributions.Normal(m, s).log_prob(DATA).sum()


FUNCTIONS = {
    "normal": (likelihood, (jnp.float32(0.5), jnp.float32(2.0))),
    "bernoulli": (lambda p: torch.distributions.Bernoulli(p).entropy().sum(), (jnp.full(3, 0.25),)),
    "many": (
        lambda c: torch.distributions.MultivariateNormal(torch.zeros(3), scale_tril=c).log_prob(
            DATA
        ),
        (jnp.eye(3) * 2,),
    ),
    "divergence": (
        lambda a, b: torch.distributions.kl_divergence(
            torch.distributions.Gamma(a, b), torch.distributions.Gamma(b, a)
        ).sum(),
        (jnp.ones(2), jnp.ones(2) * 2),
    ),
}


@pytest.mark.parametrize(("function", "arguments"), FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_a_distribution_is_evaluated_abstractly(function, arguments):
    """Without a warning, since nothing is run that nobody asked for."""
    f = jax_callable(function)
    value, gradient = jax.jit(jax.value_and_grad(f))(*arguments)
    tensors = [torch.tensor(one.tolist(), requires_grad=True) for one in arguments]
    wanted = function(*tensors)
    wanted.backward()
    assert_close(value, wanted.detach())
    assert_close(gradient, tensors[0].grad)
    assert WORDS in f.explain(*arguments)
    batched = [jnp.stack([one, one]) for one in arguments]
    assert_close(jax.jit(jax.vmap(f))(*batched), torch.stack([wanted, wanted]).detach())
    assert_close(jax.hessian(f)(*arguments), jax.jit(jax.hessian(f))(*arguments))


def test_calls_check_as_torch_does():
    f = jax_callable(likelihood)
    assert f.plan(jnp.float32(0), jnp.float32(1)).inference.flags == "unchecked"
    for way in (f, jax.jit(f)):
        with pytest.raises(Exception, match="satisfy the constraint GreaterThan"):
            jax.block_until_ready(way(jnp.float32(0), jnp.float32(-1)))


def test_another_thread_checks_while_this_one_plans():
    planning, looked = threading.Event(), threading.Event()
    found = []

    def user():
        assert planning.wait(60)
        found.append(Distribution._validate_args)
        try:
            torch.distributions.Normal(0.0, -1.0)
        except ValueError as error:
            found.append(str(error))
        looked.set()

    def slow(m, s):
        if not planning.is_set() and not Distribution._validate_args:
            planning.set()
            assert looked.wait(60)
        return likelihood(m, s)

    thread = threading.Thread(target=user)
    thread.start()
    jax.jit(jax_callable(slow))(jnp.float32(0.0), jnp.float32(1.0))
    thread.join()
    checks, words = found
    assert checks is True
    assert "satisfy the constraint GreaterThan" in words


def test_what_another_thread_sets_meanwhile_stays():
    def switching(m, s):
        if not Distribution._validate_args:
            thread = threading.Thread(target=Distribution.set_default_validate_args, args=(False,))
            thread.start()
            thread.join()
        return likelihood(m, s)

    jax.jit(jax_callable(switching))(jnp.float32(0.0), jnp.float32(1.0))
    assert vars(Distribution)["_validate_args"] is False
    Distribution.set_default_validate_args(True)
