"""Hooks on the backward change gradients, and so every other derivative, or there is none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import from_module, jax_callable

X = jnp.array([1.0, -2.0, 3.0, -4.0])
W = jnp.linspace(-1, 1, 16, dtype=jnp.float32).reshape(4, 4)


def on_a_tensor(x):
    y = x.sin()
    if y.requires_grad:
        y.register_hook(lambda g: g * 10)
    return y


def on_a_node(x):
    y = x.sin()
    if y.grad_fn is not None:
        y.grad_fn.register_prehook(lambda gradients: (gradients[0] * 10,))
    return y


def behind_a_node(x):
    y = x.sin()
    if y.requires_grad:
        torch.autograd.graph.get_gradient_edge(y).node.register_hook(
            lambda made, given: (made[0] * 10,)
        )
    return y


def of_a_module(register):
    layer = torch.nn.Linear(4, 4, bias=False)
    layer.weight = torch.nn.Parameter(torch.tensor(W.tolist()))
    register(layer)
    return layer


def times_ten(layer):
    layer.register_full_backward_hook(lambda module, ins, outs: (ins[0] * 10,))


def times_ten_before(layer):
    layer.register_full_backward_pre_hook(lambda module, outs: (outs[0] * 10,))


def clamps(layer):
    layer.register_full_backward_pre_hook(lambda module, outs: (outs[0].clamp(-0.1, 0.1),))


def with_gradient_times_ten(f):
    """The twin: values are those of ``f``, and whatever is made of its gradient is ten times it."""

    def twin(x):
        y = f(x)
        return 10 * y - jax.lax.stop_gradient(9 * y)

    return twin


FUNCTIONS = {
    "tensor": (lambda: on_a_tensor, jnp.sin),
    "node": (lambda: on_a_node, jnp.sin),
    "behind a node": (lambda: behind_a_node, jnp.sin),
    "module": (lambda: of_a_module(times_ten), lambda x: W @ x),
    "module, before": (lambda: of_a_module(times_ten_before), lambda x: W @ x),
    "inner module": (
        lambda: torch.nn.Sequential(torch.nn.Tanh(), of_a_module(times_ten_before)),
        lambda x: W @ jnp.tanh(x),
    ),
    "closed over": (
        lambda: (lambda layer: lambda x: layer(x))(of_a_module(times_ten)),
        lambda x: W @ x,
    ),
}


@pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once")
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode_is_the_transpose_of_reverse_mode(name, jit):
    make, plain = FUNCTIONS[name]
    twin = with_gradient_times_ten(plain)
    wrapped = jax_callable(make())
    wrapped = jax.jit(wrapped) if jit else wrapped
    wanted = jax.jacrev(twin)(X)
    assert_close(jax.jacrev(wrapped)(X), wanted)
    assert_close(jax.jacfwd(wrapped)(X), wanted)
    assert_close(jax.jvp(wrapped, (X,), (X,))[1], wanted @ X)
    assert_close(jax.linearize(wrapped, X)[1](X), wanted @ X)


@pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once")
def test_second_order():
    wrapped = jax_callable(of_a_module(times_ten))

    def loss(x):
        return (wrapped(x) ** 2).sum()

    assert_close(jax.hessian(loss)(X), jax.jacrev(jax.grad(loss))(X))


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("wrap", ["jax_callable", "from_module"])
def test_one_that_is_no_linear_map_has_none_forwards(wrap):
    """Gradients that are cut off are no derivative of anything."""
    layer = of_a_module(clamps)
    if wrap == "from_module":
        taken = from_module(layer)
        point, call = taken.params, lambda params: taken.apply(params, X)
    else:
        point, call = X, jax_callable(layer)
    found = jax.grad(lambda p: (call(p) ** 2).sum())(point)
    assert jax.tree.leaves(found)
    with pytest.raises(Exception, match="a hook changes gradients otherwise than linearly"):
        jax.block_until_ready(jax.jvp(lambda p: (call(p) ** 2).sum(), (point,), (found,))[1])
