"""Functions that go back inside without a graph: each result is judged by itself, when asked for.

Such a gradient is a constant for torch, though it was computed from the inputs. What has no part in
it has its derivative; what has a part in it is refused, also where autograd leads back another way.
"""

from __future__ import annotations

import weakref

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.errors import DifferentiationError

pytestmark = [
    pytest.mark.derivatives,
    # No vmap of torch's goes through `requires_grad_()` inside.
    pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once for each element"),
]

X = jnp.array([1.0, 2.0, -0.5])
V = jnp.array([0.3, -1.0, 2.0])
REFUSED = "create_graph=True"
# What is found out while it runs comes through XLA, which has no exceptions but its own.
ERRORS = (DifferentiationError, jax.errors.JaxRuntimeError)


def energy_of(y):
    return (y**3).sum()


def forces_of(x):
    y = x.detach().clone().requires_grad_()
    return -torch.autograd.grad(energy_of(y), y)[0]


def evaluated(x):
    """As MACE, SchNet and CHGNet do in evaluation."""
    return energy_of(x), forces_of(x).detach()


def evaluated_on_leaf(x):
    y = x.clone().requires_grad_()
    energy = energy_of(y)
    return energy, -torch.autograd.grad(energy, y, retain_graph=True)[0]


def evaluated_and_freed(x):
    """Once more from one record, which torch frees behind the forces unless it is told not to."""
    y = x.clone().requires_grad_()
    energy = energy_of(y)
    return energy, -torch.autograd.grad(energy, y)[0]


def evaluated_and_freed_by_backward(x):
    y = x.clone().requires_grad_()
    y.retain_grad()
    energy = energy_of(y)
    energy.backward(retain_graph=False)
    return energy, -y.grad


def evaluated_and_freed_by_values(x):
    if x.sum() > 100:
        return energy_of(x) * 0, x
    return evaluated_and_freed(x)


def evaluated_by_backward(x):
    y = x.detach().clone().requires_grad_()
    energy_of(y).backward()
    return energy_of(x), -y.grad


def evaluated_by_values(x):
    """One that no graph can be captured of."""
    if x.sum() > 100:
        return energy_of(x) * 0, x
    return evaluated(x)


def evaluated_by_vjp(x):
    """The inner gradient is a view of what it is given."""
    y = x.detach().clone().requires_grad_()
    given = (x**2).sum().detach()
    return energy_of(x), torch.autograd.grad(y.sum(), y, given)[0]


MODELS = [
    evaluated,
    evaluated_on_leaf,
    evaluated_and_freed,
    evaluated_and_freed_by_backward,
    evaluated_and_freed_by_values,
    evaluated_by_backward,
    evaluated_by_values,
    evaluated_by_vjp,
]
models = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
ways = pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])


def called(call, jit, *args):
    return jax.block_until_ready((jax.jit(call) if jit else call)(*args))


def planned(model):
    """Of one that looks at values, a jitted first call would have to guess what it returns."""
    wrapped = jax_callable(model)
    wrapped(X)
    return wrapped


# --- what has no part in it -----------------------------------------------------------------------


@ways
@models
def test_the_energy_has_its_gradient(model, jit):
    wrapped = planned(model)
    (value, forces), gradient = called(jax.value_and_grad(wrapped, has_aux=True), jit, X)
    assert_close(value, (X**3).sum())
    assert_close(forces, wrapped(X)[1])
    assert_close(gradient, 3 * X**2)
    assert_close(called(jax.grad(lambda x: wrapped(x)[0]), jit, X), 3 * X**2)


@ways
@models
def test_stopping_the_gradient_of_the_forces_works_as_advised(model, jit):
    wrapped = planned(model)

    def loss(x):
        energy, forces = wrapped(x)
        return energy + (jax.lax.stop_gradient(forces) ** 2).sum()

    assert_close(called(jax.grad(loss), jit, X), 3 * X**2)


@ways
@pytest.mark.parametrize(
    "model", [*MODELS[:3], evaluated_by_backward], ids=lambda model: model.__name__
)
def test_the_energy_has_derivatives_of_every_kind(model, jit):
    wrapped = planned(model)

    def energy(x):
        return wrapped(x)[0]

    assert_close(called(lambda x: jax.jvp(energy, (x,), (V,))[1], jit, X), (3 * X**2) @ V)
    assert_close(called(jax.jacfwd(energy), jit, X), 3 * X**2)
    assert_close(called(jax.jacrev(energy), jit, X), 3 * X**2)
    assert_close(called(jax.hessian(energy), jit, X), jnp.diag(6 * X))
    assert_close(called(lambda x: jax.linearize(energy, x)[1](V), jit, X), (3 * X**2) @ V)
    xs = jnp.stack([X, 2 * X])
    assert_close(called(jax.vmap(jax.grad(energy)), jit, xs), 3 * xs**2)
    assert_close(called(jax.grad(jax.checkpoint(energy)), jit, X), 3 * X**2)
    # As it is taken apart, both results move.
    assert_close(called(jax.grad(lambda x: jax.checkpoint(wrapped)(x)[0]), jit, X), 3 * X**2)


@pytest.mark.parametrize("residuals", ["auto", "recompute"])
@pytest.mark.parametrize("backend", ["eager", "graph", "xla"])
def test_the_energy_has_its_gradient_with_every_backend(backend, residuals):
    spec = {
        "schema": "jaxtorch/1",
        "name": "energy",
        "version": "1.0.0",
        "inputs": {"x": "float32[3]"},
        "outputs": {"energy": "float32[]", "forces": "float32[3]"},
        "residuals": residuals,
        "execution": {"backend": backend},
    }
    wrapped = jax_callable(evaluated_and_freed, spec=spec)
    assert_close(jax.jit(jax.grad(lambda x: wrapped(x)[0]))(X), 3 * X**2)


def test_only_the_functions_own_gradients_leave_the_record():
    """In the last backward torch frees what it is done with, as it goes."""
    saved, there = {}, {}

    class Saves(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, name):
            ctx.name = name
            kept = x * 1
            ctx.save_for_backward(kept)
            saved[name] = weakref.ref(kept.untyped_storage())
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            there[ctx.name] = {name for name, kept in saved.items() if kept() is not None}
            return gradient * 2, None

    wrapped = jax_callable(lambda x: Saves.apply(Saves.apply(x, "first"), "second").sum())
    jax.grad(wrapped)(X)
    assert_close(jax.grad(wrapped)(X), jnp.full(3, 4.0))
    assert there == {"second": {"first", "second"}, "first": {"first"}}


@ways
def test_the_energy_has_its_gradient_in_a_loop(jit):
    wrapped = jax_callable(evaluated)

    def descend(x):
        def step(x, _):
            energy, forces = wrapped(x)
            return x * 0.9 + 0.01 * jax.lax.stop_gradient(forces), energy

        return jax.lax.scan(step, x, None, length=3)[1].sum()

    def twin(x):
        total = 0.0
        for _ in range(3):
            total = total + (x**3).sum()
            x = x * 0.9 - 0.01 * jax.lax.stop_gradient(3 * x**2)
        return total

    assert_close(called(jax.grad(descend), jit, X), jax.grad(twin)(X))


@ways
def test_forces_that_only_decide_are_no_part_of_it(jit):
    def model(x):
        return torch.where(forces_of(x) > -2, x**2, x)

    wrapped = jax_callable(model)
    wanted = jnp.where(-3 * X**2 > -2, 2 * X, 1.0)
    assert_close(called(jax.grad(lambda x: wrapped(x).sum()), jit, X), wanted)


@ways
def test_forces_by_other_inputs_are_constants(jit):
    def model(x, w):
        return x * forces_of(w), forces_of(w)

    wrapped = jax_callable(model)
    assert_close(called(jax.grad(lambda x: wrapped(x, V)[0].sum()), jit, X), -3 * V**2)
    with pytest.raises(DifferentiationError, match=REFUSED):
        called(jax.grad(lambda w: wrapped(X, w)[0].sum()), jit, V)


# --- what has -------------------------------------------------------------------------------------


@ways
@models
def test_the_forces_are_refused_if_asked_for(model, jit):
    wrapped = planned(model)
    for call in (
        jax.grad(lambda x: wrapped(x)[1].sum()),
        jax.grad(lambda x: wrapped(x)[0] + wrapped(x)[1].sum()),
        lambda x: jax.jvp(lambda x: wrapped(x)[1].sum(), (x,), (V,)),
        jax.jacfwd(lambda x: wrapped(x)[1]),
        jax.jacrev(lambda x: wrapped(x)[1]),
    ):
        with pytest.raises(ERRORS, match=REFUSED):
            called(call, jit, X)


def mixed(x):
    return energy_of(x) + (forces_of(x) ** 2).sum()


def written(x):
    found = x.clone()
    found[1:] += forces_of(x)[1:]
    return found


def under_no_grad(x):
    forces = forces_of(x)
    with torch.no_grad():
        forces = forces * 2
    return x * forces


def through_a_custom_function(x):
    return Scaled.apply(x, forces_of(x))


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        ctx.save_for_backward(scale)
        return x * scale

    @staticmethod
    def backward(ctx, gradient):
        (scale,) = ctx.saved_tensors
        return gradient * scale, None


def by_values(x):
    return mixed(x) if x.sum() < 100 else x.sum()


def accumulated(x):
    y = x.detach().clone().requires_grad_()
    energy_of(y).backward()
    energy_of(2 * y).backward()
    return (x * y.grad).sum()


@ways
@pytest.mark.parametrize(
    "model",
    [mixed, written, under_no_grad, through_a_custom_function, by_values, accumulated],
    ids=lambda model: model.__name__,
)
def test_a_part_that_torch_takes_for_a_constant_is_never_lost(model, jit):
    """Autograd leads back to the input, by another way."""
    wrapped = planned(model)
    for call in (
        jax.grad(lambda x: wrapped(x).sum()),
        lambda x: jax.jvp(lambda x: wrapped(x).sum(), (x,), (V,)),
        jax.hessian(lambda x: wrapped(x).sum()),
    ):
        with pytest.raises(ERRORS, match=REFUSED):
            called(call, jit, X)


def test_a_branch_that_goes_back_inside_is_seen_when_it_is_taken():
    def model(x):
        return (x**2).sum() if x[0] > 0 else mixed(x)

    wrapped = planned(model)
    assert_close(jax.grad(wrapped)(X), 2 * X)
    for _ in range(5):
        with pytest.raises(DifferentiationError, match=REFUSED):
            jax.grad(wrapped)(-X)
        assert_close(jax.grad(wrapped)(X), 2 * X)


def test_the_words_name_the_result_and_what_to_do():
    wrapped = jax_callable(lambda x: dict(zip(("energy", "forces"), evaluated(x), strict=True)))
    with pytest.raises(DifferentiationError, match=REFUSED) as caught:
        jax.grad(lambda x: wrapped(x)["forces"].sum())(X)
    words = str(caught.value)
    assert "`forces`" in words or "['forces']" in words
    assert "`x`" in words
    assert "jax.lax.stop_gradient" in words


def test_a_tangent_that_nobody_may_use_is_no_number():
    """Eager forward mode hands out all tangents at once, so that one is refused when it is used."""
    wrapped = jax_callable(evaluated)
    (_, forces), (moved, refused) = jax.jvp(wrapped, (X,), (V,))
    assert_close(moved, (3 * X**2) @ V)
    assert refused.shape == forces.shape
    for use in (jnp.sum, lambda t: t + 1, jax.device_get, jax.jit(jnp.sin), jax.block_until_ready):
        with pytest.raises(DifferentiationError, match=REFUSED):
            use(refused)


@ways
def test_passing_a_graph_works_as_advised(jit):
    def model(x):
        y = x.clone().requires_grad_()
        energy = energy_of(y)
        return energy, -torch.autograd.grad(energy, y, create_graph=True)[0]

    wrapped = jax_callable(model)
    assert_close(called(jax.grad(lambda x: wrapped(x)[1].sum()), jit, X), -6 * X)
