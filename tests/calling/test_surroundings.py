"""What a function keeps and changes around itself: planning must leave no trace there."""

from __future__ import annotations

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import (
    ArgumentError,
    DifferentiationError,
    MutationError,
    TorchExecutionError,
    jax_callable,
)

pytestmark = pytest.mark.derivatives


def as_tensor(x):
    return torch.from_numpy(np.array(x))


@pytest.fixture
def x():
    return jnp.arange(4.0) + 1


def test_autocast_keeps_no_fake_weights(x):
    linear = torch.nn.Linear(4, 4)
    wrapped = jax_callable(linear)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = linear(as_tensor(x)).detach().float().numpy()
        assert_close(wrapped(x).astype(jnp.float32), wanted)
        assert_close(jax.jit(wrapped)(x).astype(jnp.float32), wanted)
        assert type(linear(torch.ones(4))) is torch.Tensor


class LazyMask(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.mask = None

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.arange(4.0)
        return x * self.mask


@functools.lru_cache
def positions(count):
    return torch.arange(float(count))


kept_in_a_dict: dict[str, torch.Tensor] = {}


def with_a_dict(x):
    if "w" not in kept_in_a_dict:
        kept_in_a_dict["w"] = torch.arange(4.0)
    return x * kept_in_a_dict["w"]


@pytest.mark.parametrize("how", ["eager", "jit", "grad"])
@pytest.mark.parametrize("kind", ["module", "lru_cache", "dict"])
def test_state_that_is_made_lazily(kind, how, x):
    module = LazyMask()
    positions.cache_clear()
    kept_in_a_dict.clear()
    function = {
        "module": module,
        "lru_cache": lambda x: x * positions(4),
        "dict": with_a_dict,
    }[kind]
    wrapped = jax_callable(function)
    if how == "grad":
        for _ in range(2):
            assert_equal(jax.grad(lambda x: wrapped(x).sum())(x), np.arange(4.0))
    call = jax.jit(lambda x: wrapped(x)) if how == "jit" else wrapped
    for _ in range(2):
        assert_equal(call(x), x * jnp.arange(4.0))
    assert type(function(as_tensor(x))) is torch.Tensor


def test_state_that_is_replaced_in_every_call(x):
    class Running(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.total = torch.zeros(4)
            self.calls = 0

        def forward(self, x):
            self.total = self.total + x.clone()
            self.calls += 1
            return self.total

    module = Running()
    wrapped = jax_callable(module)
    wrapped.plan(x)
    assert module.calls == 0
    assert_equal(wrapped(x), x)
    assert_equal(wrapped(x), 2 * x)
    assert module.calls == 2
    assert_equal(jax.grad(lambda x: wrapped(x).sum())(x), np.ones(4))
    assert module.calls == 3
    assert_equal(module.total, 3 * x)


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_recomputing_draws_the_same_random_numbers(jit):
    torch.manual_seed(0)
    norm, drop = torch.nn.BatchNorm1d(3, affine=False), torch.nn.Dropout(0.5)
    wrapped = jax_callable(lambda x, s: drop(norm(x)) * s)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((64, 3)), jnp.float32)
    call = jax.value_and_grad(lambda s: (lambda y: (y.sum(), y))(wrapped(x, s)), has_aux=True)
    (_, result), gradient = (jax.jit(call) if jit else call)(jnp.ones((64, 3)))
    assert_equal(result, gradient)
    assert "tape: the function runs once" in wrapped.explain(x, x)
    state = torch.get_rng_state()
    (jax.jit(call) if jit else call)(jnp.ones((64, 3)))
    assert (state != torch.get_rng_state()).any()


def test_reassigned_names_attributes_defaults_and_helpers(x):
    weight = torch.ones(4)
    layer = torch.nn.Linear(4, 4)

    def helper(x):
        return x * weight

    @functools.wraps(helper)
    def wrapper(x):
        return helper(x) + scale * x

    def by_default(x, module=layer):
        return module(x)

    scale = 1.0
    nested = jax_callable(lambda x: sum((lambda t: t * scale)(part) for part in x))
    through_helper, wrapping = jax_callable(lambda x: helper(x)), jax_callable(wrapper)
    defaulted = jax_callable(by_default)

    def gradients():
        return [
            float(jax.grad(lambda x: f(x).sum())(x)[0])  # noqa: B023
            for f in (nested, through_helper, wrapping)
        ]

    assert gradients() == [1.0, 1.0, 2.0]
    weight, scale = torch.ones(4) * 5, 3.0
    assert gradients() == [3.0, 5.0, 8.0]
    jax.grad(lambda x: defaulted(x).sum())(x)
    layer.weight = torch.nn.Parameter(torch.ones(4, 4))
    assert_close(jax.grad(lambda x: defaulted(x).sum())(x), np.full(4, 4.0))


def test_a_modules_python_attributes(x):
    class Scaled(torch.nn.Module):
        k = 1.0

        def forward(self, x):
            return x * self.k

    module = Scaled()
    module.k = 2.0
    wrapped = jax_callable(module)
    assert float(jax.grad(lambda x: wrapped(x).sum())(x)[0]) == 2.0
    module.k = 7.0
    assert float(jax.grad(lambda x: wrapped(x).sum())(x)[0]) == 7.0


def test_parameters_changed_between_forward_and_backward(x):
    layer = torch.nn.Linear(4, 4)
    _, pull = jax.vjp(jax_callable(layer), x)
    with torch.no_grad():
        layer.weight.mul_(10)
    with pytest.raises(TorchExecutionError, match="was changed after the forward pass"):
        pull(jnp.ones(4))


def late_write(x):
    assert float(x.sum()) > -1e9
    x.data.clamp_(max=100.0)
    return x + 1


def sometimes(x):
    if float(x.max()) > 10:
        x.clamp_(max=1.0)
    return x + 1


@pytest.mark.parametrize("function", [late_write, sometimes])
def test_writes_of_functions_that_look_at_values_are_stopped_before_they_happen(function):
    wrapped = jax_callable(function)
    if function is sometimes:
        wrapped(jnp.ones(4))
    big = jnp.full(4, 500.0)
    with pytest.raises(MutationError, match="input `x`"):
        wrapped(big)
    assert_equal(big, np.full(4, 500.0))


def test_a_gradient_that_torch_does_not_record_is_an_error():
    def hidden(x):
        assert float(x.detach().sum()) > 0
        z = x.detach().requires_grad_()
        return torch.autograd.grad((z**3).sum(), z)[0]

    def backward(x):
        z = x.detach().requires_grad_()
        (z**3).sum().backward()
        return z.grad

    def detached(x):
        return x.detach() if float(x.detach().sum()) > 0 else x

    x = jnp.ones(3)
    # What a function detaches is a constant, as under jit and in torch.
    assert_close(jax.grad(lambda x: jax_callable(detached)(x).sum())(x), jnp.zeros(3))
    for function in (hidden, backward):
        with pytest.raises(
            (DifferentiationError, jax.errors.JaxRuntimeError), match=r"without|silently"
        ):
            jax.grad(lambda x: jax_callable(function)(x).sum())(x)  # noqa: B023


def test_inference_mode(x):
    with torch.inference_mode():
        wrapped = jax_callable(lambda x: x * 2)
        assert_equal(wrapped(x), x * 2)
        assert_equal(jax.jit(wrapped)(x), x * 2)
        assert_equal(jax.grad(lambda x: wrapped(x).sum())(x), np.full(4, 2.0))


class Methods:
    k = 2.0

    @jax_callable
    def scaled(self, x):
        return x * self.k


class Child(Methods):
    @jax_callable
    def scaled(self, x):
        return super().scaled(x) + 1


def test_methods_of_copies_subclasses_and_pickles(x):
    original = Methods()
    assert_equal(original.scaled(x), 2 * x)
    for again in (
        copy.copy(original),
        copy.deepcopy(original),
        pickle.loads(pickle.dumps(original)),
    ):
        again.k = 9.0
        assert_equal(again.scaled(x), 9 * x)
    assert_equal(original.scaled(x), 2 * x)
    assert_equal(Child().scaled(x), 2 * x + 1)


@pytest.mark.filterwarnings("ignore:Python iterable type:DeprecationWarning")
def test_iterators_and_look_alike_statics(x):
    with pytest.raises(ArgumentError, match="more than once, got a generator"):
        jax_callable(lambda x, it: x * sum(it))(x, (s for s in [1.0, 2.0]))
    pick = jax_callable(lambda x, s: x * next(iter(s)) if type(next(iter(s))) is float else x.int())
    assert pick(x, frozenset({1})).dtype == jnp.int32
    assert pick(x, frozenset({1.0})).dtype == jnp.float32


def test_eager_calls_on_arrays_still_being_computed():
    def fails(x):
        if not isinstance(x, torch._subclasses.FakeTensor):
            raise KeyError("late")
        return x

    big = jnp.ones((1500, 1500))
    with pytest.raises(Exception, match="late") as caught:
        jax_callable(fails)(big @ big @ big @ big)
    assert isinstance(caught.value.__cause__, KeyError)


def test_contract_names_of_results_are_enforced(x):
    from jaxtorch_bridge import SpecMismatchError

    spec = {
        "schema": "jaxtorch/1",
        "name": "named",
        "version": "1.0.0",
        "inputs": {"x": "float32[n]"},
        "outputs": {"loss": "float32[n]", "logits": "float32[n]"},
    }
    with pytest.raises(
        SpecMismatchError, match="expected the names loss, logits; torch returned a, b"
    ):
        jax_callable(lambda x: {"a": x, "b": x * 2}, spec=spec)(x)


def test_explain_that_runs_the_function_says_so(x):
    runs = []
    note = runs.append

    def looks(x):
        if float(x.sum()) > 0:
            note(1)
        return x * 2

    wrapped = jax_callable(looks)
    text = wrapped.explain(x)
    assert len(runs) == 1
    assert "extra runs   1" in text


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_modules_passed_as_static_arguments(x):
    drop = torch.nn.Dropout(1.0 - 1e-7)
    drop.eval()
    wrapped = jax_callable(lambda x, module: module(x))
    gradient = jax.grad(lambda x: wrapped(x, drop).sum())
    assert_equal(gradient(x), np.ones(4))
    drop.train()
    assert_equal(gradient(x), np.zeros(4))


def test_a_global_that_the_function_deletes_is_put_back(x):
    globals()["SHORT_LIVED"] = 2.0

    def function(x):
        global SHORT_LIVED
        value = SHORT_LIVED
        del SHORT_LIVED
        return x * value

    wrapped = jax_callable(function)
    wrapped.plan(x)
    assert globals()["SHORT_LIVED"] == 2.0


def test_a_variable_that_was_not_bound_is_not_bound_by_planning(x):
    def function(x):
        nonlocal latest
        latest = x * 2
        return latest + 1

    (cell,) = function.__closure__
    plan = jax_callable(function).plan(x)
    assert plan.inference.how == "fake"
    with pytest.raises(ValueError, match="empty"):
        cell.cell_contents  # noqa: B018
    latest = None
