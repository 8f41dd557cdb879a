"""Modules whose code runs again when gradients are taken: checkpoints, custom functions, hooks.

By then the call has ended, and others may have run with other parameters.
"""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from comparing import assert_close
from jaxtorch_bridge import DifferentiationError, from_module, jax_callable, settings, t2j

pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad"),
    pytest.mark.filterwarnings("ignore:.*found abstractly"),
]
BOTH = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
SIZE = 4


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(SIZE, SIZE), torch.nn.Linear(SIZE, SIZE)
        self.register_buffer("shift", torch.linspace(0.1, 0.4, SIZE))
        self.scale = torch.nn.Parameter(torch.linspace(0.5, 1.5, SIZE))

    def inner(self, x):
        return torch.tanh(self.first(x) * self.scale + self.shift)


class Checkpointed(Layers):
    reentrant = False

    def forward(self, x):
        y = checkpoint(self.inner, x * 1.5, use_reentrant=self.reentrant)
        return checkpoint(lambda z: self.second(z).sin(), y, use_reentrant=self.reentrant)


class CheckpointedReentrantly(Checkpointed):
    reentrant = True


class LooksAtValues(Checkpointed):
    def forward(self, x):
        return super().forward(x) * (2.0 if float(x.detach().sum()) > 100 else 1.0)


class LooksAtValuesReentrantly(LooksAtValues):
    reentrant = True


class Runs(torch.autograd.Function):
    """A backward that runs a layer, which `ctx` holds."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.save_for_backward(x)
        ctx.layer = layer
        return layer(x)

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(ctx.layer(x), x, cotangent)[0], None


class WithFunction(Layers):
    def forward(self, x):
        return self.second(Runs.apply(self.inner(x), self.first))


class WithTensorHook(Layers):
    def forward(self, x):
        y = self.inner(x)
        if y.requires_grad:
            y.register_hook(lambda cotangent: cotangent * self.scale.detach())
        return self.second(y)


class WithTable(Layers):
    """What the backward needs is reached by a table of the module, and not by the module."""

    def forward(self, x):
        tables = self.first.__dict__["_parameters"] if "weight" in vars(self.first) else None
        table = self.first._parameters if tables is None else tables
        y = checkpoint(
            lambda z: torch.nn.functional.linear(z, table["weight"]).tanh(), x, use_reentrant=False
        )
        return self.second(y)


MODULES = [
    Checkpointed,
    CheckpointedReentrantly,
    LooksAtValues,
    LooksAtValuesReentrantly,
    WithFunction,
    WithTensorHook,
    WithTable,
]
ALL = pytest.mark.parametrize("kind", MODULES)


def made(kind):
    torch.manual_seed(0)
    module = kind()
    rng = np.random.default_rng(1)
    points = [
        {
            name: jnp.asarray(rng.standard_normal(tensor.shape) * 0.5, jnp.float32)
            for name, tensor in module.named_parameters()
        }
        for _ in range(3)
    ]
    xs = [jnp.asarray(rng.standard_normal((2, SIZE)), jnp.float32) for _ in range(3)]
    return module, from_module(module, names="flat"), points, xs


def torch_gradients(module, params, x):
    """Gradients of the sum of squares, by parameters and input."""
    own = copy.deepcopy(module)
    with torch.no_grad():
        for name, tensor in own.named_parameters():
            tensor.copy_(torch.from_numpy(np.array(params[name])))
    x = torch.from_numpy(np.array(x)).requires_grad_()
    (own(x) ** 2).sum().backward()
    grads = {
        name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        for name, tensor in own.named_parameters()
    }
    return {name: t2j(grad) for name, grad in grads.items()}, t2j(x.grad)


@BOTH
@ALL
def test_gradients(kind, jit):
    module, taken, points, xs = made(kind)
    grad = jit(jax.grad(lambda p, x: (taken.apply(p, x) ** 2).sum(), argnums=(0, 1)))
    for params, x in zip(points, xs, strict=True):
        for found, want in zip(grad(params, x), torch_gradients(module, params, x), strict=True):
            assert_close(found, want)
    # What was taken from is not touched.
    assert all(tensor.grad is None for tensor in module.parameters())


@ALL
def test_others_run_before_the_backward(kind):
    module, taken, points, xs = made(kind)
    pulls = [
        jax.vjp(lambda p, x: taken.apply(p, x), params, x)
        for params, x in zip(points, xs, strict=True)
    ]
    for index in (2, 0, 1):
        result, pull = pulls[index]
        # Another call between them, in the free skeletons.
        taken.apply(points[(index + 1) % 3], xs[index])
        for found, want in zip(
            pull(2 * result), torch_gradients(module, points[index], xs[index]), strict=True
        ):
            assert_close(found, want)


@ALL
def test_several_in_one_program(kind):
    module, taken, points, xs = made(kind)

    @jax.jit
    def loss(points, xs):
        return sum(
            (taken.apply(params, x) ** 2).sum() for params, x in zip(points, xs, strict=True)
        )

    found = jax.grad(loss, argnums=(0, 1))(points, xs)
    for index in range(3):
        params, x = torch_gradients(module, points[index], xs[index])
        assert_close(found[0][index], params)
        assert_close(found[1][index], x)


@ALL
def test_in_a_scan(kind):
    module, taken, points, xs = made(kind)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)

    def loss(stacked, xs):
        def step(total, pair):
            params, x = pair
            return total + (taken.apply(params, x) ** 2).sum(), None

        return jax.lax.scan(step, 0.0, (stacked, xs))[0]

    found = jax.jit(jax.grad(loss, argnums=(0, 1)))(stacked, jnp.stack(xs))
    for index in range(3):
        params, x = torch_gradients(module, points[index], xs[index])
        assert_close(jax.tree.map(lambda leaf, index=index: leaf[index], found[0]), params)
        assert_close(found[1][index], x)


@BOTH
@ALL
def test_jacobians(kind, jit):
    module, taken, points, xs = made(kind)
    params, x = points[0], xs[0]
    jacobians = jit(jax.jacrev(taken.apply, argnums=(0, 1)))(params, x)
    result = taken.apply(params, x)
    found = jax.tree.map(lambda j: jnp.tensordot(2 * result, j, axes=result.ndim), jacobians)
    for one, want in zip(found, torch_gradients(module, params, x), strict=True):
        assert_close(one, want)


@pytest.mark.parametrize("kind", [Checkpointed, LooksAtValues, WithTable])
def test_second_derivatives(kind):
    module, taken, points, xs = made(kind)

    def slope(x):
        return jnp.sum(jax.grad(lambda x: (taken.apply(points[0], x) ** 2).sum())(x) ** 2)

    own = copy.deepcopy(module)
    with torch.no_grad():
        for name, tensor in own.named_parameters():
            tensor.copy_(torch.from_numpy(np.array(points[0][name])))
    x = torch.from_numpy(np.array(xs[0])).requires_grad_()
    (first,) = torch.autograd.grad((own(x) ** 2).sum(), x, create_graph=True)
    (want,) = torch.autograd.grad((first**2).sum(), x)
    assert_close(jax.grad(slope)(xs[0]), t2j(want))


@BOTH
def test_a_grad_of_the_users_stays_what_it_is(jit):
    layer = torch.nn.Linear(3, 3)
    layer.weight.grad = kept = torch.full((3, 3), 7.0)
    # The second use adds to the same `grad`.
    call = jax_callable(
        lambda x: checkpoint(lambda y: layer(y).sin() * x, x, use_reentrant=True) + layer(x)
    )
    x = torch.randn(3, generator=torch.Generator().manual_seed(0))
    found = jit(jax.grad(lambda x: call(x).sum()))(t2j(x))
    assert layer.weight.grad is kept
    assert float(kept.min()) == float(kept.max()) == 7.0
    assert layer.bias.grad is None
    x = x.requires_grad_()
    (checkpoint(lambda y: layer(y).sin() * x, x, use_reentrant=True) + layer(x)).sum().backward()
    assert_close(found, t2j(x.grad))


@pytest.mark.parametrize("form", [False, True], ids=["not", "reentrant"])
def test_one_run_each(form):
    runs = []

    class Counted(Checkpointed):
        reentrant = form

        def inner(self, x):
            runs.append(type(x))
            return super().inner(x)

    _, taken, points, xs = made(Counted)
    grad = jax.jit(jax.grad(lambda p, x: (taken.apply(p, x) ** 2).sum(), argnums=(0, 1)))
    for _ in range(3):
        grad(points[0], xs[0])
    runs.clear()
    grad(points[1], xs[1])
    # The forward and torch's own repeat; with no room for tapes, another forward.
    assert len(runs) == (3 if settings.tape_bytes == 0 else 2)


def test_of_what_takes_no_gradient_torch_gives_none():
    # As in torch, which says so: the checkpoint sees only its input.
    _, taken, points, xs = made(CheckpointedReentrantly)
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad"):
        found = jax.grad(lambda p: (taken.apply(p, xs[0]) ** 2).sum())(points[0])
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))


def test_second_derivatives_of_the_reentrant_form_are_refused():
    _, taken, points, xs = made(CheckpointedReentrantly)
    with pytest.raises(DifferentiationError, match="use_reentrant=False"):
        jax.hessian(lambda x: (taken.apply(points[0], x) ** 2).sum())(xs[0])
