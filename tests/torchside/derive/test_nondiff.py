"""Leaves that are left out of differentiation by name."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.errors import PlanningError

pytestmark = pytest.mark.derivatives


def layer(params, x):
    return torch.tanh(x @ params["w"] + params["b"])


PARAMS = {"w": jnp.ones((3, 2)), "b": jnp.zeros(2)}
X = jnp.arange(6.0).reshape(2, 3) / 6


def test_a_named_leaf_gets_no_gradient_and_the_others_do():
    wrapped = jax_callable(layer, nondiff=("params['b']",))
    found = jax.grad(lambda params: wrapped(params, X).sum())(PARAMS)
    wanted = jax.grad(
        lambda params: jnp.tanh(X @ params["w"] + jax.lax.stop_gradient(params["b"])).sum()
    )(PARAMS)
    assert_close(found["w"], wanted["w"])
    assert_equal(found["b"], 0)


def test_a_name_covers_everything_below_it_in_every_mode():
    wrapped = jax_callable(layer, nondiff=["params"])
    assert not np.any(jax.grad(lambda params: wrapped(params, X).sum())(PARAMS)["w"])
    _, tangent = jax.jvp(lambda params: wrapped(params, X), (PARAMS,), (PARAMS,))
    assert_equal(tangent, 0)
    assert np.any(jax.grad(lambda x: wrapped(PARAMS, x).sum())(X))


def test_it_shows_in_the_plan():
    wrapped = jax_callable(layer, nondiff=("x",))
    assert "float32[2, 3], not differentiable" in wrapped.explain(PARAMS, X)
    assert wrapped.plan(PARAMS, X).digest != jax_callable(layer).plan(PARAMS, X).digest


def test_it_is_kept_by_copies():
    wrapped = copy.copy(jax_callable(layer, nondiff=("x",)))
    assert not np.any(jax.grad(lambda x: wrapped(PARAMS, x).sum())(X))


def test_a_name_that_leads_nowhere_is_an_error_that_lists_the_arrays():
    wrapped = jax_callable(layer, nondiff=("params['bias']",))
    with pytest.raises(PlanningError, match=r"got `params\['bias'\]`.*`params\['b'\]`, `params"):
        wrapped(PARAMS, X)


def test_a_prefix_of_a_name_is_another_name():
    with pytest.raises(PlanningError, match="got `param`"):
        jax_callable(layer, nondiff=("param",))(PARAMS, X)


def test_a_single_string_is_refused():
    with pytest.raises(TypeError, match=r"write nondiff=\('x',\)"):
        jax_callable(layer, nondiff="x")
