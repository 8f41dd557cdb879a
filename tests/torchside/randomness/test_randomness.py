"""One call, one mask: value, gradient, tangent and second order see the same random numbers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable

F = torch.nn.functional


def spec(residuals):
    return {
        "schema": "jaxtorch/1", "name": "noisy", "version": "1.0.0", "residuals": residuals,
        "inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"},
    }  # fmt: skip


class Shift(torch.autograd.Function):
    """Old style, so that only autograd can differentiate what uses it."""

    @staticmethod
    def forward(ctx, x):
        return x + 0

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def dropout(x):
    return F.dropout(x, 0.5)


def drop_path(x):
    keep = torch.rand(x.shape) < 0.5
    return torch.where(keep, x * 2, torch.zeros(()))


def noise(x):
    """No mask, but as well recovered: y / x."""
    return x * torch.randn_like(x)


def dropout_by_autograd(x):
    return Shift.apply(F.dropout(x, 0.5))


def looks_at_values(x):
    """No graph of it can be made."""
    assert bool(torch.isfinite(x).all())
    return F.dropout(x, 0.5)


FUNCTIONS = {
    "dropout": (dropout, "auto", "tape"),
    "drop_path": (drop_path, "auto", "tape"),
    "noise": (noise, "auto", "tape"),
    "dropout_func": (dropout, "recompute", "func"),
    "noise_func": (noise, "recompute", "func"),
    "dropout_autograd": (dropout_by_autograd, "recompute", "autograd"),
    "looks_at_values": (looks_at_values, "auto", "tape"),
}

pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning"),
]


@pytest.fixture(params=FUNCTIONS)
def linear(request):
    """A function ``y = mask * x`` with a new mask in every call."""
    function, residuals, engine = FUNCTIONS[request.param]
    torch.manual_seed(0)
    wrapped = jax_callable(function, spec=spec(residuals))
    wrapped(jnp.ones(40))
    wrapped(jnp.ones(20))
    op = wrapped._planned((jnp.ones(40),), {}).op
    assert op.family.linearize(op, (0,)).engine == engine
    return wrapped


def value_and_slopes(f):
    """``y`` and ``dL/dx`` of ``L = sum(y * w)`` from one call."""

    def run(x, w):
        return jax.grad(lambda x: (lambda y: ((y * w).sum(), y))(f(x)), has_aux=True)(x)

    return run


W = jnp.linspace(1.0, 2.0, 40)


def mask_of(y, x):
    mask = np.asarray(y) / np.asarray(x)
    assert np.unique(mask.round(3)).size > 5 or set(np.unique(mask)) == {0.0, 2.0}
    return mask


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_value_and_gradient_see_one_mask(linear, jit):
    x = jnp.linspace(1.0, 3.0, 40)
    run = value_and_slopes(linear)
    run = jax.jit(run) if jit else run
    masks = []
    for _ in range(3):
        gradient, y = run(x, W)
        masks.append(mask_of(y, x))
        assert_close(gradient, masks[-1] * W)
    assert (masks[0] != masks[1]).any()
    assert (masks[1] != masks[2]).any()


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_tangents_see_the_mask_of_the_value(linear, jit):
    x, v = jnp.linspace(1.0, 3.0, 40), jnp.linspace(-1.0, 1.0, 40)

    def run(x, v):
        return jax.jvp(linear, (x,), (v,))

    for _ in range(2):
        y, moved = (jax.jit(run) if jit else run)(x, v)
        assert_close(moved, mask_of(y, x) * v)


def test_linearize_sees_one_mask_however_often_it_is_applied(linear):
    x, v = jnp.linspace(1.0, 3.0, 40), jnp.linspace(-1.0, 1.0, 40)
    y, push = jax.linearize(linear, x)
    for factor in (1, 2):
        moved = push(factor * v)
        assert_close(moved, mask_of(y, x) * v * factor)
    y, pull = jax.vjp(linear, x)
    for factor in (1, 2):
        (moved,) = pull(factor * v)
        assert_close(moved, mask_of(y, x) * v * factor)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_each_element_of_a_batch_has_a_mask_of_its_own(linear, jit):
    x, w = jnp.linspace(1.0, 3.0, 40).reshape(2, 20), W.reshape(2, 20)
    run = jax.vmap(value_and_slopes(linear))
    gradient, y = (jax.jit(run) if jit else run)(x, w)
    mask = mask_of(y, x)
    assert_close(gradient, mask * w)
    assert (mask[0] != mask[1]).any()


def test_the_jacobian_is_the_mask(linear):
    x = jnp.linspace(1.0, 3.0, 20)

    def twice(x):
        y = linear(x)
        return y, y

    for jacobian in (jax.jacfwd, jax.jacrev):
        found, y = jacobian(twice, has_aux=True)(x)
        assert_close(found, np.diag(mask_of(y, x)))


def test_inside_scan_each_step_has_a_mask_of_its_own(linear):
    x, w = jnp.linspace(1.0, 3.0, 20), W[:20]

    scales = jnp.asarray([1.0, 2.0, 3.0])

    def loss(x):
        def step(carry, scale):
            # Of the step, or XLA would take the call out of the loop.
            y = linear(x * scale)
            return carry + (y * w).sum(), y

        return jax.lax.scan(step, 0.0, scales)

    gradient, ys = jax.jit(jax.grad(loss, has_aux=True))(x)
    masks = np.stack([mask_of(y, x * scale) for y, scale in zip(ys, scales, strict=True)])
    assert_close(gradient, scales @ masks * w)
    assert (masks[0] != masks[1]).any()


def test_under_checkpoint_value_and_gradient_see_one_mask(linear):
    """JAX runs the forward again; what it draws must be what was drawn."""
    x = jnp.linspace(1.0, 3.0, 40)
    run = value_and_slopes(jax.checkpoint(linear))
    for call in (run, jax.jit(run)):
        gradient, y = call(x, W)
        assert_close(gradient, mask_of(y, x) * W)


# --- second order --------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("mode", ["rev_rev", "fwd_rev", "rev_fwd", "fwd_fwd"])
def test_second_order_sees_one_mask(linear, mode, jit):
    """y = (m x)^3 outside of torch: its second derivative is 6 m^3 x."""
    x, v = jnp.linspace(1.0, 3.0, 20), jnp.linspace(0.5, 1.0, 20)

    def with_value(x):
        y = linear(x)
        return (y**3).sum(), y

    def first(x):
        return jax.grad(with_value, has_aux=True)(x)

    def run(x):
        if mode == "rev_rev":
            return jax.grad(
                lambda x: (lambda g, y: ((g * v).sum(), (g, y)))(*first(x)), has_aux=True
            )(x)
        if mode == "fwd_rev":
            g, bent, y = jax.jvp(first, (x,), (v,), has_aux=True)
            return bent, (g, y)
        if mode == "rev_fwd":

            def slope(x):
                _, moved, y = jax.jvp(with_value, (x,), (v,), has_aux=True)
                return moved, (None, y)

            return jax.grad(slope, has_aux=True)(x)

        def slope(x):
            _, moved, y = jax.jvp(with_value, (x,), (v,), has_aux=True)
            return moved, y

        _, bent, y = jax.jvp(slope, (x,), (v,), has_aux=True)
        return bent, (None, y)

    bent, (slope, y) = (jax.jit(run) if jit else run)(x)
    mask = mask_of(y, x)
    wanted = 6 * mask**3 * x * v
    if slope is not None:
        assert_close(slope, 3 * mask**3 * x**2)
    assert_close(bent, wanted if bent.ndim else (wanted * v).sum())


def penalised(x):
    """y = sum (m x)^3 in torch, so that its own second derivative is asked for."""
    y = F.dropout(x, 0.5)
    return (y**3).sum(), y


class Penalty:
    functions = {
        "tape": (penalised, "auto"),
        "func": (penalised, "recompute"),
        "autograd": (lambda x: penalised(Shift.apply(x)), "recompute"),
        "values": (lambda x: penalised(looks(x)), "auto"),
    }


def looks(x):
    assert bool(torch.isfinite(x).all())
    return x


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", Penalty.functions)
def test_a_gradient_penalty_sees_one_mask(name, jit):
    """L = y + |dy/dx|^2 with y = sum (m x)^3: dL/dx = 3 m^3 x^2 + 36 m^6 x^3."""
    function, residuals = Penalty.functions[name]
    contract = {
        "schema": "jaxtorch/1", "name": "penalised", "version": "1.0.0", "residuals": residuals,
        "inputs": {"x": "float32[n]"}, "outputs": {"loss": "float32[]", "y": "float32[n]"},
    }  # fmt: skip
    wrapped = jax_callable(function, spec=contract)
    x = jnp.linspace(0.5, 1.0, 20)

    def loss(x):
        (value, y), slope = jax.value_and_grad(wrapped, has_aux=True)(x)
        return value + (slope**2).sum(), (value, y, slope)

    call = jax.value_and_grad(loss, has_aux=True)
    torch.manual_seed(1)
    for _ in range(2):
        (total, (value, y, slope)), bent = (jax.jit(call) if jit else call)(x)
        mask = mask_of(y, x)
        assert_close(value, (mask**3 * x**3).sum())
        assert_close(slope, 3 * mask**3 * x**2)
        assert_close(total, value + (slope**2).sum())
        assert_close(bent, 3 * mask**3 * x**2 + 36 * mask**6 * x**3)


@pytest.mark.parametrize("name", ["tape", "func"])
def test_the_hessian_of_one_mask_is_diagonal(name):
    function, residuals = Penalty.functions[name]
    contract = {
        "schema": "jaxtorch/1", "name": "penalised", "version": "1.0.0", "residuals": residuals,
        "inputs": {"x": "float32[n]"}, "outputs": {"loss": "float32[]", "y": "float32[n]"},
    }  # fmt: skip
    wrapped = jax_callable(function, spec=contract)
    x = jnp.linspace(0.5, 1.0, 12)
    torch.manual_seed(2)
    hessian, y = jax.hessian(wrapped, has_aux=True)(x)
    mask = mask_of(y, x) if y.ndim == 1 else mask_of(y[0], x)
    assert_close(hessian, np.diag(6 * mask**3 * x))


# --- modules and torch's generator ---------------------------------------------------------------


@pytest.mark.parametrize("residuals", ["auto", "recompute"])
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_an_mlp_with_dropout_agrees_with_torch_for_the_same_seed(residuals, jit):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.Dropout(0.5), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    )
    contract = {
        "schema": "jaxtorch/1", "name": "net", "version": "1.0.0", "residuals": residuals,
        "inputs": {"input": "float32[b, 6]"}, "outputs": {"y": "float32[b, 1]"},
    }  # fmt: skip
    wrapped = jax_callable(net, spec=contract)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32))
    call = jax.value_and_grad(lambda x: (wrapped(x) ** 2).sum())
    call = jax.jit(call) if jit else call
    call(x)  # traces, which must not be what draws
    torch.manual_seed(5)
    value, gradient = call(x)
    torch.manual_seed(5)
    t = torch.from_numpy(np.array(x)).requires_grad_()
    wanted = (net(t) ** 2).sum()
    wanted.backward()
    assert_close(value, wanted.detach())
    assert_close(gradient, t.grad)


def test_a_gradient_advances_torchs_generator_as_the_value_does(linear):
    """The backward must not draw, or two trainings with one seed would part."""
    x = jnp.ones(40)
    run = value_and_slopes(linear)
    run(x, W)
    torch.manual_seed(7)
    jax.block_until_ready(run(x, W))
    after_gradient = torch.get_rng_state()
    torch.manual_seed(7)
    jax.block_until_ready(linear(x))
    assert_equal(torch.get_rng_state(), after_gradient)


def test_random_code_that_is_switched_off_has_plain_derivatives():
    layer = torch.nn.Dropout(0.5).eval()
    wrapped = jax_callable(lambda x: layer(x) ** 2)
    x = jnp.arange(3.0)
    assert_close(jax.grad(lambda x: wrapped(x).sum())(x), 2 * x)
    assert_close(jax.hessian(lambda x: wrapped(x).sum())(x), 2 * np.eye(3))
