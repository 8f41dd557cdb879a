"""Forward mode of ops that are not torch's own, which torch takes for constants."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable


@torch.library.custom_op("jaxtorch_bridge_tests::cube", mutates_args=())
def cube(x: torch.Tensor) -> torch.Tensor:
    return x**3


@cube.register_fake
def _(x):
    return torch.empty_like(x)


cube.register_autograd(
    lambda ctx, g: 3 * g * ctx.saved_tensors[0] ** 2,
    setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
)


@pytest.fixture
def both():
    return jax_callable(lambda x: cube(x.sin()) * x), lambda x: jnp.sin(x) ** 3 * x


X = jnp.asarray([0.3, -1.2, 2.0])


# Batches of what autograd does twice go one by one.
@pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once for each element")
@pytest.mark.parametrize(
    "use",
    [
        lambda f: jax.jvp(f, (X,), (X + 1,)),
        lambda f: jax.jit(jax.jacfwd(f))(X),
        lambda f: jax.hessian(lambda x: f(x).sum())(X),
        lambda f: jax.linearize(f, X)[1](X),
        lambda f: jax.vmap(lambda x: jax.jvp(f, (x,), (x,))[1])(jnp.stack([X, X + 1])),
        lambda f: jax.jvp(jax.grad(lambda x: f(x).sum()), (X,), (X,)),
    ],
    ids=["jvp", "jacfwd", "hessian", "linearize", "vmap", "forward over reverse"],
)
def test_custom_ops_have_tangents(both, use):
    wrapped, reference = both
    assert_close(use(wrapped), use(reference))
