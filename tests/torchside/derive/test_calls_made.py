"""Which calls each transformation makes, and what travels between them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable, settings

pytestmark = pytest.mark.derivatives

SPEC = {
    "schema": "jaxtorch/1",
    "name": "wave",
    "version": "1.0.0",
    "inputs": {"x": "float32[n]"},
    "outputs": {"y": "float32[n]"},
}
X = jnp.arange(8.0)


def wave(x):
    return torch.sin(torch.exp(-x) * 3)


def gradient(function):
    return jax.jit(jax.grad(lambda x: function(x).sum()))(X)


WANTED = jax.grad(lambda x: jnp.sin(jnp.exp(-x) * 3).sum())(X)


def test_recompute_keeps_nothing():
    wrapped = jax_callable(wave, spec={**SPEC, "residuals": "recompute"})
    text = jax.jit(jax.grad(lambda x: wrapped(x).sum())).lower(X).as_text()
    assert_close(gradient(wrapped), WANTED)
    assert "/forward/" not in text
    assert "recompute with torch.func.vjp, 0 bytes kept" in wrapped.explain(X)


def calls(function, *arguments):
    """Primitives of the bridge in a jaxpr, with the keys of what they run."""
    jaxpr = jax.make_jaxpr(function)(*arguments)
    return [eqn.primitive.name for eqn in jaxpr.eqns if eqn.primitive.name.startswith("torch")]


def test_how_many_calls_each_transformation_makes():
    wrapped = jax_callable(lambda x: wave(x).sum())
    assert calls(wrapped, X) == ["torch_call"]
    assert calls(lambda x: jax.jvp(wrapped, (x,), (x,)), X) == ["torch_jvp_call"]
    assert calls(jax.value_and_grad(wrapped), X) == ["torch_call", "torch_linear_call"]
    assert calls(jax.jacfwd(wrapped), X) == ["torch_call"]
    assert calls(jax.jacrev(wrapped), X) == ["torch_call", "torch_linear_call"]


def test_pure_forward_mode_under_jit_saves_nothing():
    wrapped = jax_callable(wave)
    for forward in (lambda x: jax.jvp(wrapped, (x,), (x,)), jax.jacfwd(wrapped)):
        text = jax.jit(forward).lower(X).compile().as_text()
        assert "/push/" in text
        assert "/forward/" not in text


def test_dead_code_elimination_drops_tapes_and_tangents():
    """The rules that JAX applies inside of loops and when it differentiates a jitted function."""
    from jax._src.interpreters import partial_eval

    wrapped = jax_callable(wave)

    def left(function, used):
        jaxpr = jax.make_jaxpr(function)(X).jaxpr
        slim, _ = partial_eval.dce_jaxpr(jaxpr, used)
        return [eqn for eqn in slim.eqns if eqn.primitive.name.startswith("torch")]

    (only,) = left(lambda x: jax.vjp(wrapped, x)[0], [True])
    assert only.params["op"].role.tag == "function"
    assert len(only.outvars) == 1
    (only,) = left(lambda x: jax.jvp(wrapped, (x,), (x,)), [True, False])
    assert only.primitive.name == "torch_call"

    both = jax_callable(lambda x, y: torch.tanh(x) * y)
    grads = jax.grad(lambda x, y: both(x, y).sum(), argnums=(0, 1))
    jaxpr = jax.make_jaxpr(grads)(X, X).jaxpr
    slim, _ = partial_eval.dce_jaxpr(jaxpr, [False, True])
    linear = slim.eqns[-1]
    assert linear.params["ins"] == (1,)


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(AttributeError, match="expected one of tape_bytes"):
        settings.limit = 3
