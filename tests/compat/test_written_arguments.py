"""Torch functions that write to their arguments work as they are, on copies, with one warning."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import BridgeWarning
from jaxtorch_bridge.compat import Size, torch2jax, torch2jax_auto, torch2jax_flat

X = jnp.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
Y = jnp.array([[1.0, 2.0, -1.0], [0.5, 3.0, 0.25]])


def centre(x, y):
    x -= x.mean()
    x[:, 0] = 0
    return (x * y).sin()


def centred(x, y):
    return jnp.sin((x - x.mean()).at[:, 0].set(0) * y)


def looks(x, y):
    if float(x.detach().sum()) > 100:
        return x * 0
    return centre(x, y)


def told(record):
    return [str(one.message) for one in record if "gives it a copy" in str(one.message)]


MAKERS = {
    "examples": lambda f: torch2jax(f, X, Y),
    "outputs": lambda f: torch2jax(f, X, Y, output_shapes=Size([2, 3])),
    "auto": torch2jax_auto,
    "flat": lambda f: torch2jax_flat(f, [jax.ShapeDtypeStruct((2, 3), jnp.float32)]),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("function", [centre, looks])
@pytest.mark.parametrize("jitted", [False, True])
def test_values_and_one_warning(make, function, jitted):
    wrapped = MAKERS[make](function)
    call = jax.jit(wrapped) if jitted else wrapped
    x = jnp.array(np.array(X))
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for _ in range(3):
            assert_close(jax.tree.leaves(call(x, Y))[0], centred(X, Y))
            assert_equal(x, X)
        if make != "flat":
            call(X[:1], Y[:1])
    (words,) = told(record)
    assert words.startswith(f"{function.__name__}: the torch function writes to `x`")
    assert 'mutates=("x",)' in words
    assert 'copies=("x",)' in words


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
@pytest.mark.parametrize("function", [centre, looks])
def test_derivatives(function):
    wrapped = torch2jax(function, X, Y)
    wrapped(X, Y)
    weighted = lambda f: lambda x, y: (f(x, y) * jnp.arange(6.0).reshape(2, 3)).sum()  # noqa: E731
    mine, theirs = weighted(wrapped), weighted(centred)
    expected = jax.grad(theirs, (0, 1))(X, Y)
    assert_close(jax.grad(mine, (0, 1))(X, Y), expected)
    assert_close(jax.jit(jax.grad(mine, (0, 1)))(X, Y), expected)
    assert_close(jax.hessian(mine)(X, Y), jax.hessian(theirs)(X, Y))
    pair = jnp.stack([X, 2 * X]), jnp.stack([Y, Y])
    assert_close(jax.vmap(wrapped)(*pair), jax.vmap(centred)(*pair))


def test_what_is_written_is_told_by_its_part_and_explained():
    def step(state):
        state["mean"].mul_(2)
        return state["mean"] + state["other"]

    wrapped = torch2jax(step, {"mean": X, "other": Y})
    with pytest.warns(BridgeWarning, match=r'copies=\("state.mean",\)'):
        assert_close(wrapped({"mean": X, "other": Y}), 2 * X + Y)
    assert "copies       `state.mean`" in wrapped.explain({"mean": X, "other": Y})


def test_nothing_is_copied_and_said_of_others():
    wrapped = torch2jax(lambda x: x * 2, X)
    assert_close(wrapped(X), 2 * X)
    assert "copies" not in wrapped.explain(X)


def test_a_module_that_works_in_place():
    wrapped = torch2jax(torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Tanh()), X)
    with pytest.warns(BridgeWarning, match="writes to `input`"):
        assert_close(jax.jit(wrapped)(X), jnp.tanh(jax.nn.relu(X)))


def test_torch_tensors_are_passed_as_they_are():
    x = torch.ones(2, 3)
    torch2jax(centre, X, Y)(x, torch.ones(2, 3))
    assert_equal(x, torch.zeros(2, 3))
