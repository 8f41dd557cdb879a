"""Derivatives on CUDA, in float64, compared with torch.func on the same GPU."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from gpu_arrays import normal, tensor_of
from jaxtorch_bridge import jax_callable

pytestmark = pytest.mark.gpu

F = torch.nn.functional
# Which kernels, and with them which order of sums, a library takes depends on the GPU.
close = functools.partial(assert_close, factor=5000)


@pytest.fixture(autouse=True)
def _double():
    # Torch's fused attention on GPUs has no forward mode, so the reference must do without.
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with jax.enable_x64(True), math:
        yield


def perceptron(x, w):
    return F.gelu(x @ w).softmax(-1)


def attention(x, w):
    q = (x @ w).reshape(1, 2, 3, -1)
    return F.scaled_dot_product_attention(q, q.sin(), q.cos()).reshape(6, -1)


def convolution(x, w):
    return torch.tanh(F.conv1d(x[None], w.t()[:, :, None]))[0].t()


def normalised(x, w):
    return F.layer_norm(x @ w, (w.shape[1],), w[0], w[1])


def ordered(x, w):
    return torch.cumsum(x @ w, 0).sort(-1).values ** 2


def spectrum(x, w):
    return torch.fft.rfft(x @ w).abs() + 1


def solved(x, w):
    square = x.t() @ x + 5 * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return torch.linalg.solve(square, w) + torch.linalg.cholesky(square).sum()


FUNCTIONS = [perceptron, attention, convolution, normalised, ordered, spectrum, solved]
functions = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)


def arguments(function):
    x, w = normal(6, 4, dtype="float64"), normal(4, 4, seed=1, dtype="float64")
    return (x[:4], w) if function is convolution else (x, w)


def scalar(function):
    return lambda *args: (function(*args) ** 2).sum()


@functions
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_first_derivatives(gpu, function, jit):
    wrapped, args = jax_callable(function), arguments(function)
    tensors = [tensor_of(a) for a in args]
    wrap = jax.jit if jit else (lambda f: f)
    found = wrap(jax.value_and_grad(scalar(wrapped), (0, 1)))(*args)
    gradients, value = torch.func.grad_and_value(scalar(function), (0, 1))(*tensors)
    close(found, (value, gradients))
    assert all(list(leaf.devices()) == [gpu] for leaf in jax.tree.leaves(found))
    tangents = [jnp.cos(a) for a in args]
    pushed = wrap(lambda *args: jax.jvp(wrapped, args, tuple(tangents)))(*args)
    expected = torch.func.jvp(function, tuple(tensors), tuple(map(tensor_of, tangents)))
    close(pushed, expected)


@functions
def test_jacobians_and_hessian(gpu, function):
    wrapped, args = jax_callable(function), arguments(function)
    tensors = [tensor_of(a) for a in args]
    expected = torch.func.jacrev(function)(*tensors)
    close(jax.jit(jax.jacrev(wrapped))(*args), expected)
    close(jax.jit(jax.jacfwd(wrapped))(*args), expected)
    hessian = torch.func.jacfwd(torch.func.grad(scalar(function)))(*tensors)
    close(jax.jit(jax.hessian(scalar(wrapped)))(*args), hessian)


@functions
def test_batches(gpu, function):
    wrapped = jax_callable(function)
    x, w = arguments(function)
    xs = jnp.stack([x, x * 0.5, x + 1])
    expected = [function(tensor_of(x), tensor_of(w)) for x in xs]
    close(jax.jit(jax.vmap(wrapped, (0, None)))(xs, w), torch.stack(expected))
    each = jax.jit(jax.vmap(jax.grad(scalar(wrapped)), (0, None)))(xs, w)
    wanted = [torch.func.grad(scalar(function))(tensor_of(x), tensor_of(w)) for x in xs]
    close(each, torch.stack(wanted))


def test_loops_branches_and_checkpoints(gpu):
    wrapped = jax_callable(lambda x, w: torch.tanh(x @ w))
    x, w = normal(5, 5, dtype="float64"), normal(5, 5, seed=1, dtype="float64")

    def through(x, w):
        step = jax.checkpoint(lambda carry, _: (wrapped(carry, w), carry.sum()))
        last, sums = jax.lax.scan(step, x, None, length=30)
        last = jax.lax.cond(sums[0] > 1e9, lambda: last, lambda: wrapped(last, w))
        return (last**2).sum() + sums.sum()

    def plain(x, w):
        total = 0
        for _ in range(30):
            total = total + x.sum()
            x = torch.tanh(x @ w)
        return (torch.tanh(x @ w) ** 2).sum() + total

    found = jax.jit(jax.grad(through, (0, 1)))(x, w)
    close(found, torch.func.grad(plain, (0, 1))(tensor_of(x), tensor_of(w)))


def test_a_loop_until_a_value(gpu):
    wrapped = jax_callable(lambda x, w: torch.tanh(x @ w) + x + 1)
    x, w = normal(5, 5, dtype="float64"), normal(5, 5, seed=1, dtype="float64")
    forward = jax.jit(
        lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 50, lambda x: wrapped(x, w), x)
    )
    value = tensor_of(x)
    while value[0, 0] < 50:
        value = wrapped.torch(value, tensor_of(w))
    close(forward(x), value)


def test_forces_from_inside_do_not_leave_tensors_behind(gpu):
    """Autograd's threads for GPUs may let go of an input after the call has returned."""

    def forces(x):
        with torch.enable_grad():
            x = x if x.requires_grad else x.detach().requires_grad_()
            energy = (x[:, None] - x[None]).square().sum().sin()
            return -torch.autograd.grad(energy, x, create_graph=True)[0]

    wrapped = jax.jit(jax_callable(forces))
    x = normal(4, 3, dtype="float64")
    expected = forces(tensor_of(x))
    for _ in range(300):
        found = wrapped(x)
    close(found, expected)


class Doubled(torch.autograd.Function):
    """Old style: only autograd can differentiate it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


def test_the_rung_of_autograd(gpu):
    wrapped = jax_callable(lambda x: Doubled.apply(x.sin()).cos())
    x = normal(50, dtype="float64")
    gradient = jax.jit(jax.grad(lambda x: wrapped(x).sum()))
    for _ in range(300):
        found = gradient(x)
    twin = jax.grad(lambda x: jnp.cos(jnp.sin(x) ** 2).sum())(x)
    close(found, twin)
