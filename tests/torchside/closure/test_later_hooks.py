"""Hooks that modules get after their first calls, for them or for all modules."""

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable

pytestmark = pytest.mark.filterwarnings("ignore:.*calls torch once for each element")

X = jnp.array([1.0, 2.0, -0.5, 0.3])
MODULES = torch.nn.modules.module


def thrice(module, inputs, outputs):
    return (inputs[0] * 3,)


HOOKS = {
    "forward": lambda layer: layer.register_forward_hook(lambda m, i, o: o * 3),
    "forward of all": lambda _: MODULES.register_module_forward_hook(lambda m, i, o: o * 3),
    "before the forward": lambda layer: layer.register_forward_pre_hook(lambda m, i: (i[0] * 3,)),
    "backward": lambda layer: layer.register_full_backward_hook(thrice),
    "backward of all": lambda _: MODULES.register_module_full_backward_hook(thrice),
    "before the backward": lambda layer: layer.register_full_backward_pre_hook(
        lambda m, o: (o[0] * 3,)
    ),
}


def total(g):
    return lambda x: g(x).sum()


WAYS = {
    "call": lambda g: g(X).sum(),
    "grad": lambda g: jax.grad(total(g))(X) @ X,
    "jvp": lambda g: jax.jvp(total(g), (X,), (X,))[1],
    "jacfwd": lambda g: jax.jacfwd(total(g))(X) @ X,
    "vmap": lambda g: jax.vmap(g)(X[None]).sum(),
    "vmap of grad": lambda g: jax.vmap(jax.grad(total(g)))(X[None])[0] @ X,
}


@pytest.mark.parametrize("backend", ["eager", "graph"])
@pytest.mark.parametrize("hook", HOOKS)
def test_every_way_sees_hooks_that_come_and_go(hook, backend):
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4, bias=False)
    wrapped = jax_callable(layer, backend=backend)
    before = {name: way(wrapped) for name, way in WAYS.items()}
    handle = HOOKS[hook](layer)
    try:
        for name, way in WAYS.items():
            # Hooks on the backward change gradients, and with them tangents.
            changes = "backward" not in hook or name not in ("call", "vmap")
            assert_close(way(wrapped), before[name] * (3 if changes else 1), label=name)
    finally:
        handle.remove()
    for name, way in WAYS.items():
        assert_close(way(wrapped), before[name], label=name)
