"""Functions that write to their arguments and cannot be changed: they get copies."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import (
    ArgumentError,
    BridgeWarning,
    MutationError,
    SpecError,
    from_module,
    jax_callable,
)

X = jnp.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
Y = jnp.array([[1.0, 2.0, -1.0], [0.5, 3.0, 0.25]])


def centre(x, y):
    x -= x.mean()
    return (x * y).sin()


def centred(x, y):
    return jnp.sin((x - x.mean()) * y)


def column(x, y):
    x[:, 0] = 0
    x.mul_(y)
    return x


def columned(x, y):
    return x.at[:, 0].set(0) * y


def standardise(x, y):
    x -= x.mean()
    x /= x.std()  # of the old value, which is gone
    for row in x:
        row *= row.abs().sum()
    return x.exp_() * y.mul(x)


def standardised(x, y):
    x = x - x.mean()
    x = x / jnp.std(x, ddof=1)
    x = jnp.exp(x * jnp.abs(x).sum(1, keepdims=True))
    return x * y * x


def looks(x, y):
    if float(x.detach().sum()) > 100:
        return x * 0
    x.mul_(y)
    return x.exp()


PAIRS = [
    (centre, centred),
    (column, columned),
    (standardise, standardised),
    (lambda x, y: x.add_(y).cos_(), lambda x, y: jnp.cos(x + y)),
    (lambda x, y: x.view(-1).exp_().view_as(y) * y, lambda x, y: jnp.exp(x) * y),
    (lambda x, y: torch.relu_(x) * y, lambda x, y: jax.nn.relu(x) * y),
    (looks, lambda x, y: jnp.exp(x * y)),
]


def weighted(function):
    return lambda x, y: (function(x, y) * jnp.arange(1.0, 7).reshape(2, 3)).sum()


def wrap(function):
    wrapped = jax_callable(function, copies=("x",))
    if function is looks:
        wrapped(X, Y)  # an eager call shows what it returns
    return wrapped


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
@pytest.mark.parametrize(("function", "twin"), PAIRS)
class TestAgainstTwins:
    def test_values_and_the_callers_array(self, function, twin):
        x = jnp.array(np.array(X))
        wrapped = wrap(function)
        for call in (wrapped, jax.jit(wrapped)):
            for _ in range(2):
                assert_close(call(x, Y), twin(x, Y))
                assert_equal(x, X)
        assert_close(wrapped(x, x), twin(x, x))
        assert_equal(x, X)

    def test_derivatives(self, function, twin):
        mine, theirs = weighted(wrap(function)), weighted(twin)
        expected = jax.grad(theirs, (0, 1))(X, Y)
        assert_close(jax.grad(mine, (0, 1))(X, Y), expected)
        assert_close(jax.grad(mine, 1)(X, Y), expected[1])
        assert_close(jax.jit(jax.grad(mine, (0, 1)))(X, Y), expected)
        assert_close(jax.grad(jax.checkpoint(mine), (0, 1))(X, Y), expected)
        assert_close(jax.jvp(mine, (X, Y), (Y, X)), jax.jvp(theirs, (X, Y), (Y, X)))
        push = lambda f: jax.jit(lambda x, y: jax.jvp(f, (x, y), (y, x)))  # noqa: E731
        assert_close(push(mine)(X, Y), push(theirs)(X, Y))

    def test_second_derivatives(self, function, twin):
        mine, theirs = weighted(wrap(function)), weighted(twin)
        expected = jax.hessian(theirs)(X, Y)
        assert_close(jax.hessian(mine)(X, Y), expected)
        assert_close(jax.jit(jax.jacrev(jax.grad(mine)))(X, Y), expected)

    @pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
    def test_batches(self, function, twin, axes):
        wrapped = wrap(function)
        x, y = (
            jnp.stack([a, a * 2, a - 1]) if axis == 0 else a
            for a, axis in zip((X, Y), axes, strict=True)
        )
        expected = jax.vmap(twin, axes)(x, y)
        assert_close(jax.vmap(wrapped, axes)(x, y), expected)
        assert_close(jax.jit(jax.vmap(wrapped, axes))(x, y), expected)
        slope = lambda f: jax.vmap(jax.grad(weighted(f), (0, 1)), axes)(x, y)  # noqa: E731
        assert_close(slope(wrapped), slope(twin))


def scaled(x, y):
    with torch.no_grad():
        x.mul_(3)
    return (x * y).sin()


def test_writes_that_torch_takes_for_constant_are_so_here():
    f = jax_callable(scaled, copies=("x",))
    x, y = (torch.tensor(a.tolist(), requires_grad=True) for a in (X, Y))
    want = torch.autograd.grad(scaled(x.clone(), y).sum(), (x, y))
    for grad in (g := jax.grad(lambda x, y: f(x, y).sum(), (0, 1)), jax.jit(g)):
        assert_close(grad(X, Y), want)


def test_writes_by_out():
    f = jax_callable(lambda x, y: torch.add(x, y, out=x).cos(), copies=("x",))
    assert_close(jax.jit(f)(X, Y), jnp.cos(X + Y))
    with pytest.warns(BridgeWarning, match="once for each element"):
        assert_close(jax.vmap(f)(X, Y), jnp.cos(X + Y))


def test_running_statistics_and_renormed_weights():
    def norm(x, mean, var):
        return torch.nn.functional.batch_norm(x, mean, var, training=True)

    mean, var = jnp.zeros(3), jnp.ones(3)
    with pytest.raises(
        MutationError, match=r'input `mean`.*mutates=\("mean",\).*copies=\("mean",\)'
    ):
        jax_callable(norm)(X, mean, var)
    with pytest.raises(MutationError, match="So it does with `var`: name these, too"):
        jax_callable(norm)(X, mean, var)
    f = jax_callable(norm, copies=("mean", "var"))
    want = norm(torch.tensor(X.tolist()), torch.zeros(3), torch.ones(3))
    assert_close(jax.jit(f)(X, mean, var), want)
    with pytest.raises(MutationError, match=r'copies=\("running_mean",\)'):
        jax_callable(torch.nn.functional.batch_norm)(X, mean, var, training=True)

    def look_up(ids, weight):
        return torch.nn.functional.embedding(ids, weight, max_norm=1.0)

    ids = jnp.array([1, 0, 1])
    with pytest.raises(MutationError, match=r'mutates=\("weight",\).*copies=\("weight",\)'):
        jax_callable(look_up)(ids, X)
    f = jax_callable(look_up, copies=("weight",))
    weight = torch.tensor(X.tolist(), requires_grad=True)
    want = look_up(torch.tensor([1, 0, 1]), weight.clone())
    assert_close(jax.jit(f)(ids, X), want)
    slope = jax.jit(jax.grad(lambda w: (f(ids, w) ** 2).sum()))(X)
    assert_close(slope, torch.autograd.grad((want**2).sum(), weight)[0])


@dataclasses.dataclass
class State:
    mean: object
    count: object = None


class TestNames:
    def test_parts_of_an_argument(self):
        def step(state, x):
            state["mean"].add_(x)
            return state["mean"] + state["other"]

        f = jax_callable(step, copies=("state.mean",))
        state = {"mean": X, "other": Y}
        assert_close(f(state, Y), X + 2 * Y)
        assert_equal(state["mean"], X)
        assert_close(jax_callable(step, copies=("state",))(state, Y), X + 2 * Y)
        assert_close(jax_callable(step, copies=("state['mean']",))(state, x=Y), X + 2 * Y)
        with pytest.raises(MutationError, match="state"):
            jax_callable(step, copies=("state.other",))(state, Y)

    def test_whole_containers_and_dataclasses(self):
        def step(state, xs):
            state.mean.add_(1)
            xs[1].zero_()
            return state.mean + xs[0] + xs[1]

        f = jax_callable(step, copies=("state.mean", "xs.1"))
        assert_close(f(State(X), [X, Y]), 2 * X + 1)
        assert_close(jax_callable(step, copies=("state", "xs"))(State(X, 3), [X, Y]), 2 * X + 1)

    def test_arguments_that_are_left_out(self):
        def step(x, y=None, **more):
            x.add_(1)
            return x if y is None else x + y.mul_(2)

        f = jax_callable(step, copies=("x", "y"))
        assert_close(f(X), X + 1)
        assert_close(f(X, None), X + 1)
        assert_close(f(X, y=Y), X + 1 + 2 * Y)

    def test_functions_without_a_signature(self):
        with pytest.raises(MutationError, match=r'copies=\("args.0",\)'):
            jax_callable(torch.relu_)(X)
        assert_close(jax_callable(torch.relu_, copies=("args.0",))(X), jax.nn.relu(X))
        assert_close(jax_callable(torch.relu_, mutates=("args.0",))(X), jax.nn.relu(X))
        assert_close(jax_callable(lambda *args: args[0].exp_(), copies=("args.0",))(X), jnp.exp(X))

    def test_names_that_do_not_fit(self):
        with pytest.raises(ArgumentError, match=r"the argument `q`.*`copies`.*among `x`, `y`"):
            jax_callable(centre, copies=("q",))(X, Y)
        with pytest.raises(ArgumentError, match="argument `y`: expected arrays"):
            jax_callable(lambda x, y: x.add_(y), copies=("x", "y"))(X, 2)
        with pytest.raises(TypeError, match=r"write copies=\('x',\)"):
            jax_callable(centre, copies="x")

    @pytest.mark.parametrize("copies", ["x", "x.mean"])
    def test_both_at_once(self, copies):
        with pytest.raises(ArgumentError, match="under `mutates` or under `copies`; got both"):
            jax_callable(centre, mutates=("x",), copies=(copies,))

    def test_beside_declared_writes(self):
        def step(x, y):
            x.sub_(y)
            y.mul_(2)
            return y.sum()

        f = jax_callable(step, mutates=("x",), copies=("y",))
        for call in (f, jax.jit(f)):
            total, x = call(X, Y)
            assert_close(total, 2 * Y.sum())
            assert_close(x, X - Y)
        slope = jax.grad(lambda x, y: f(x, y)[0] + (f(x, y)[1] * Y).sum(), (0, 1))(X, Y)
        assert_close(slope, (Y, 2 - Y))

    def test_other_writes_stay_errors(self):
        with pytest.raises(MutationError, match="input `y`"):
            jax_callable(lambda x, y: y.add_(x), copies=("x",))(X, Y)


def contract(**more):
    return {
        "schema": "jaxtorch/1",
        "name": "centre",
        "version": "1.0.0",
        "inputs": {"x": "float32[a, b]", "y": "float32[a, b]"},
        "outputs": {"z": "float32[a, b]"},
        "copies": ["x"],
        **more,
    }


class TestContracts:
    def test_the_field(self):
        f = jax_callable(centre, spec=contract())
        for call in (f, jax.jit(f)):
            assert_close(call(X, Y), centred(X, Y))
        with pytest.raises(ArgumentError, match="copies"):
            jax_callable(centre, spec=contract(), copies=("y",))
        with pytest.raises(ArgumentError, match="got both"):
            jax_callable(centre, spec=contract(), mutates=("x",))

    # Torch hides it, unless warnings are errors.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
    @pytest.mark.parametrize("backend", ["eager", "graph", "compile"])
    def test_backends(self, backend):
        f = jax_callable(centre, spec=contract(execution={"backend": backend}))
        assert_close(jax.jit(f)(X, Y), centred(X, Y))
        assert_close(jax.grad(weighted(f))(X, Y), jax.grad(weighted(centred))(X, Y))

    def test_both_at_once(self):
        with pytest.raises(SpecError, match="which is under `mutates`"):
            jax_callable(centre, spec=contract(mutates=["x"]))


def test_explain_says_so():
    text = jax_callable(centre, copies=("x",)).explain(X, Y)
    assert "copies       `x`: the function gets a copy of its own" in text


def test_two_callables_with_and_without_have_keys_of_their_own():
    with_copies, without = jax_callable(centred_torch, copies=("x",)), jax_callable(centred_torch)
    assert with_copies.plan(X, Y).key != without.plan(X, Y).key


def centred_torch(x, y):
    return x - x.mean() + y


def test_tensors_are_passed_as_they_are():
    x = torch.ones(3)
    jax_callable(lambda x: x.add_(1), copies=("x",))(x)
    assert_equal(x, torch.full((3,), 2.0))


def test_modules_whose_layers_work_in_place():
    layers = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(3, 2))
    plain = from_module(layers)
    with pytest.raises(MutationError, match=r'copies=\("input",\)'):
        plain.apply(plain.params, X)
    taken = from_module(layers, copies=("input",))
    w, b = taken.params["1"]["weight"], taken.params["1"]["bias"]
    assert_close(taken.apply(taken.params, X), jax.nn.relu(X) @ w.T + b)
    slope = jax.jit(jax.grad(lambda x: taken.apply(taken.params, x).sum()))(X)
    assert_close(slope, jax.grad(lambda x: (jax.nn.relu(x) @ w.T).sum())(X))
    with pytest.raises(TypeError, match=r"write copies=\('input',\)"):
        from_module(layers, copies="input")
