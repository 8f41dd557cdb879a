"""What a function detaches, or makes of nothing, is a constant: eager, jitted, in every order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.errors import DifferentiationError

pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once for each element"),
]

X = jnp.array([0.3, 1.0, -2.0])
V = jnp.array([1.0, -1.0, 0.5])
stop = jax.lax.stop_gradient


def inner_gradient(x):
    y = x.detach().requires_grad_()
    return torch.autograd.grad((y**3).sum(), y, create_graph=True)[0]


def without_gradients(x):
    with torch.no_grad():
        return x**2


def partly_without(x):
    with torch.no_grad():
        scale = x.sum()
    return x**2 * scale


# The function, and the same in JAX.
FUNCTIONS = {
    "inner gradient": (inner_gradient, lambda x: stop(3 * x**2)),
    "detached": (lambda x: x.detach() ** 2, lambda x: stop(x**2)),
    "data": (lambda x: x.data**2, lambda x: stop(x**2)),
    "partly detached": (lambda x: x.detach() * x, lambda x: stop(x) * x),
    "no_grad": (without_gradients, lambda x: stop(x**2)),
    "partly no_grad": (partly_without, lambda x: x**2 * stop(x.sum())),
    "integers": (lambda x: (x * 3).long(), lambda x: (x * 3).astype(int)),
    "from integers": (lambda x: (x * 3).int().float(), lambda x: stop(jnp.trunc(x * 3))),
    "constant": (lambda x: torch.ones(3), lambda x: jnp.ones(3)),
    "linear": (lambda x: 2 * x, lambda x: 2 * x),
    "several": (
        lambda x: torch.stack([x.detach(), x * x]).sum(0) + torch.ones(3),
        lambda x: stop(x) + x * x + 1,
    ),
}


def looking(function):
    return lambda x: function(x) if bool(x.sum() < 100) else x


def transformed(loss):
    yield "grad", jax.grad(loss)
    yield "jvp", lambda x: jax.jvp(loss, (x,), (V,))[1]
    yield "linearize", lambda x: jax.linearize(loss, x)[1](V)
    yield "hessian", jax.hessian(loss)
    yield "grad of grad", jax.grad(lambda x: (jax.grad(loss)(x) * V).sum())
    yield "jvp of grad", lambda x: jax.jvp(jax.grad(loss), (x,), (V,))[1]


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("looks", [False, True], ids=["traced", "looks at values"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_constants_are_constants(name, looks, jit):
    function, twin = FUNCTIONS[name]
    wrapped = jax_callable(looking(function) if looks else function)
    wrapped(X)
    # The sum alone leaves no cotangent that depends on the input.
    for loss_of in (lambda f: lambda x: f(x).astype(float).sum(), lambda f: lambda x: f(x) @ x):
        pairs = zip(transformed(loss_of(wrapped)), transformed(loss_of(twin)), strict=True)
        for (label, mine), (_, theirs) in pairs:
            found = (jax.jit(mine) if jit else mine)(X)
            assert_close(found, theirs(X), label=label)


@pytest.mark.filterwarnings("ignore:.*so this eager call was run on copies")
def test_what_leaves_torch_need_not_be_a_constant():
    wrapped = jax_callable(lambda x: torch.from_numpy(x.detach().numpy() ** 2))
    wrapped(X)
    for call in (
        jax.grad(lambda x: wrapped(x).sum()),
        lambda x: jax.jvp(wrapped, (x,), (V,)),
        jax.hessian(lambda x: wrapped(x).sum()),
    ):
        with pytest.raises((DifferentiationError, jax.errors.JaxRuntimeError), match="numpy"):
            jax.block_until_ready(call(X))
