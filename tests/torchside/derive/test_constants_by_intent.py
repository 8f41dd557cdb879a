"""Inner gradients that a function detaches and goes on with: constants by its own word.

First-order meta-learning, contrastive divergence, adversarial examples, minima inside of a loss.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.errors import DifferentiationError

pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once for each element"),
]

W = np.array([1.0, 2.0, -1.0], np.float32)
X = np.array([[0.3, 0.5, 0.7], [0.9, 1.1, 1.3]], np.float32)
Y = np.ones(2, np.float32)
ERRORS = (DifferentiationError, jax.errors.JaxRuntimeError)


def error_of(w, x, y):
    return ((x @ w - y) ** 2).mean()


def slope_of(w, x, y):
    free = w.detach().requires_grad_()
    return torch.autograd.grad(error_of(free, x, y), free)[0]


def first_order_meta_learning(w, x, y):
    return error_of(w - 0.1 * slope_of(w, x, y).detach(), x, y)


def by_data(w, x, y):
    return error_of(w - 0.1 * slope_of(w, x, y).data, x, y)


def in_several_steps(w, x, y):
    fast = w
    for _ in range(3):
        fast = fast - 0.1 * slope_of(fast, x, y).detach()
    return error_of(fast, x, y)


def by_momentum(w, x, y):
    fast, velocity = w, torch.zeros_like(w)
    for _ in range(3):
        velocity = 0.9 * velocity + slope_of(fast, x, y).detach()
        fast = fast - 0.1 * velocity
    return error_of(fast, x, y)


def detached_twice(w, x, y):
    slope = slope_of(w, x, y)
    norm = slope.detach().norm()
    return error_of(w - 0.1 * slope.detach().view(-1)[:3] / norm, x, y)


def by_values(w, x, y):
    """One that no graph can be captured of."""
    if x.sum() > 100:
        return w.sum()
    return first_order_meta_learning(w, x, y)


def contrastive_divergence(w, x, y):
    sample = x.clone().detach().requires_grad_(True)
    for _ in range(3):
        energy = (sample @ w).pow(2).sum()
        (slope,) = torch.autograd.grad(energy, sample)
        sample = (sample - 0.01 * slope).detach().requires_grad_(True)
    sample = sample.detach()
    return (x @ w).pow(2).sum() - (sample @ w).pow(2).sum() + 0 * y.sum()


def minimum_inside(w, x, y):
    least = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.SGD([least], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (((least - w.detach()) ** 2).sum() + (least * x[0]).sum()).backward()
        optimizer.step()
    least = least.detach()
    return ((least - w) ** 2).sum() + (least * x[0]).sum() + 0 * y.sum()


def adversarial(w, x, y):
    shift = torch.zeros_like(x, requires_grad=True)
    error_of(w, x + shift, y).backward()
    slope = shift.grad.detach()
    return error_of(w, x + 0.1 * slope / slope.norm(), y)


MEANT = [
    first_order_meta_learning,
    by_data,
    in_several_steps,
    by_momentum,
    detached_twice,
    by_values,
    contrastive_divergence,
    minimum_inside,
    adversarial,
]
TRANSFORMS = {
    "grad": jax.grad,
    "jvp": lambda f: (
        lambda w, *rest: jnp.stack(
            [jax.jvp(lambda w: f(w, *rest), (w,), (one,))[1] for one in jnp.eye(3)]
        )
    ),
    "hessian": jax.hessian,
}


def of_torch(function, order):
    w, *rest = map(torch.tensor, (W, X, Y))
    by_w = lambda w: function(w, *rest)  # noqa: E731
    functional = torch.autograd.functional
    return (functional.hessian if order == 2 else functional.jacobian)(by_w, w).numpy()


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize(
    ("function", "backend"),
    [
        pytest.param(function, backend, id=f"{function.__name__}-{backend}")
        for function in MEANT
        for backend in ("eager", "graph", "xla")
        if backend == "eager" or function is not by_values
    ],
)
def test_it_is_torchs(function, name, backend, jit):
    call = jax_callable(function, backend=backend)
    arrays = tuple(map(jnp.asarray, (W, X, Y)))
    if function is by_values:
        call(*arrays)  # a jitted first call would have to guess
    run = TRANSFORMS[name](call)
    found = (jax.jit(run) if jit else run)(*arrays)
    assert_close(found, of_torch(function, 2 if name == "hessian" else 1), factor=10)


# --- no word of the function's --------------------------------------------------------------------


def not_detached(w, x, y):
    return error_of(w - 0.1 * slope_of(w, x, y), x, y)


def used_before(w, x, y):
    slope = slope_of(w, x, y)
    moved = w - 0.1 * slope
    return error_of(moved + 0 * slope.detach(), x, y)


def used_as_well(w, x, y):
    slope = slope_of(w, x, y)
    return error_of(w - 0.1 * slope * slope.detach(), x, y)


def used_later(w, x, y):
    slope = slope_of(w, x, y)
    moved = w - 0.1 * slope.detach()
    return error_of(moved - 0.1 * slope, x, y)


def a_view_from_before(w, x, y):
    slope = slope_of(w, x, y)
    flat = slope.view(-1)
    length = slope.detach().norm()
    return error_of(w - 0.1 * flat + 0 * length, x, y)


def a_view_from_later(w, x, y):
    slope = slope_of(w, x, y)
    length = slope.detach().norm()
    return error_of(w - 0.1 * slope.view(-1) + 0 * length, x, y)


def torchs_own_code_detaches(w, x, y):
    second = torch.autograd.functional.hessian(lambda w: (w**4).sum(), w.detach())
    return error_of(w - 0.1 * (second @ w), x, y)


def another_one(w, x, y):
    return error_of(w - 0.1 * slope_of(w, x, y).detach() * slope_of(w, x, y), x, y)


def written_over(w, x, y):
    meant = slope_of(w, x, y).detach()
    meant += slope_of(w, x, y)
    return error_of(w - 0.1 * meant, x, y)


def no_other_way(w, x, y):
    return error_of(slope_of(w, x, y).detach(), x, y)


def no_other_way_from_a_leaf(w, x, y):
    return error_of(slope_of(w, x, y).detach().requires_grad_(), x, y)


@pytest.mark.parametrize("name", ["grad", "jvp"])
@pytest.mark.parametrize(
    "function",
    [
        not_detached,
        used_before,
        used_as_well,
        used_later,
        a_view_from_before,
        a_view_from_later,
        torchs_own_code_detaches,
        another_one,
        written_over,
        no_other_way,
        no_other_way_from_a_leaf,
    ],
    ids=lambda function: function.__name__,
)
def test_it_is_refused(function, name):
    alone = function.__name__.startswith("no_other_way")
    # `.detach()` would be of no use where it is the only way back.
    words = "create_graph=True inside, or stop" if alone else r"or go on with \.detach\(\)"
    for backend in ("eager", "graph"):
        call = jax_callable(function, backend=backend)
        for jit in (lambda f: f, jax.jit):
            with pytest.raises(ERRORS, match=words):
                jax.block_until_ready(jit(TRANSFORMS[name](call))(*map(jnp.asarray, (W, X, Y))))


def test_one_that_looks_at_values_is_refused():
    def function(w, x, y):
        return w.sum() if x.sum() > 100 else not_detached(w, x, y)

    call = jax_callable(function)
    arrays = tuple(map(jnp.asarray, (W, X, Y)))
    call(*arrays)
    with pytest.raises(ERRORS, match=r"or go on with \.detach\(\)"):
        jax.block_until_ready(jax.grad(call)(*arrays))


def test_what_is_said_to_a_profiler_is_no_operation():
    def function(x):
        with torch.profiler.record_function("outer"):
            y = x * 2
            with torch.profiler.record_function("inner"):
                y = y.sin()
        return y

    x = jnp.asarray(W)
    for backend in ("eager", "graph", "xla"):
        call = jax_callable(function, backend=backend)
        assert_close(call(x), jnp.sin(2 * x))
        assert_close(jax.grad(lambda x, call=call: call(x).sum())(x), 2 * jnp.cos(2 * x))
