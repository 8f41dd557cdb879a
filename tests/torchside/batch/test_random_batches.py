"""Random functions under Jacobians: one run, one mask, whatever is batched."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable

# Torch cannot batch some of the functions here, which is said once a callable.
pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:.*once for each element"),
    pytest.mark.filterwarnings("ignore:.*draws random numbers"),
]

RECOMPUTE = {
    "schema": "jaxtorch/1",
    "name": "noisy",
    "version": "1.0.0",
    "inputs": {"x": "float32[n]"},
    "outputs": {"y": "float32[n]"},
    "residuals": "recompute",
}


def noisy(x):
    return torch.nn.functional.dropout(x, 0.5) * x


def looks(x):
    return torch.nn.functional.dropout(x, 0.5) * x if float(x.detach()[0]) > 0 else x


X = jnp.arange(1.0, 33.0)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("way", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize(
    ("function", "spec"),
    [(noisy, None), (noisy, RECOMPUTE), (looks, None)],
    ids=["saved", "func", "autograd"],
)
def test_a_jacobian_is_of_one_mask(function, spec, way, jit):
    wrapped = jax_callable(function, spec=spec)
    wrapped(X)  # planned now, so that a function that looks at values need not be run on zeros
    torch.manual_seed(0)
    value, jacobian = jit(lambda x: way(lambda x: (wrapped(x), wrapped(x)), has_aux=True)(x)[::-1])(
        X
    )
    diagonal = jnp.diag(jacobian)
    # dropout(x) * x is 2 x^2 or 0: the derivative must be 4 x or 0, and nothing off the diagonal.
    assert_equal(jacobian - jnp.diag(diagonal), 0)
    kept = diagonal != 0
    assert 0 < int(kept.sum()) < len(X)
    assert_close(diagonal, jnp.where(kept, 4 * X, 0))
    assert value.shape == X.shape


@pytest.mark.parametrize(
    ("function", "spec"),
    [(noisy, None), (noisy, RECOMPUTE), (looks, None)],
    ids=["saved", "func", "autograd"],
)
def test_value_and_jacobian_of_one_call_share_the_mask(function, spec):
    wrapped = jax_callable(function, spec=spec)
    wrapped(X)  # planned now, so that a function that looks at values need not be run on zeros
    value, back = jax.vjp(wrapped, X)
    rows = jax.vmap(back)(jnp.eye(len(X)))[0]
    assert_close(jnp.diag(rows), 2 * value / X)
    value, forth = jax.linearize(wrapped, X)
    columns = jax.vmap(forth)(jnp.eye(len(X)))
    assert_close(jnp.diag(columns), 2 * value / X)
    value, tangents = jax.vmap(lambda t: jax.jvp(wrapped, (X,), (t,)), out_axes=(None, 0))(
        jnp.eye(len(X))
    )
    assert_close(jnp.diag(tangents), 2 * value / X)


@pytest.mark.parametrize("spec", [None, RECOMPUTE], ids=["saved", "func"])
def test_every_element_of_a_batch_has_a_mask_of_its_own(spec):
    wrapped = jax_callable(noisy, spec=spec)
    xs = jnp.stack([X] * 4)
    values, gradients = jax.vmap(
        lambda x: jax.value_and_grad(lambda x: (lambda y: (y.sum(), y))(wrapped(x)), has_aux=True)(
            x
        )
    )(xs)
    kept = values[1] != 0
    assert (kept[0] != kept[1]).any()
    assert_close(gradients, jnp.where(kept, 4 * xs, 0))


@pytest.mark.parametrize("spec", [None, RECOMPUTE], ids=["saved", "func"])
def test_second_order_uses_the_mask_of_the_forward(spec):
    """Of y + |dy/dx|^2 with another mask in the second term, the gradient would not fit y."""
    wrapped = jax_callable(noisy, spec=spec)

    def loss(x):
        y, back = jax.vjp(wrapped, x)
        (slope,) = back(jnp.ones_like(y))
        return y.sum() + (slope**2).sum() / 2, y

    gradient, y = jax.grad(loss, has_aux=True)(X)
    kept = y != 0
    assert_close(gradient, jnp.where(kept, 4 * X + 16 * X, 0))
