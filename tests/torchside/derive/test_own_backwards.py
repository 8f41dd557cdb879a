"""Code with a backward that is not torch's: right in every mode and order, or refused."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from torch.utils.checkpoint import checkpoint

from comparing import assert_close
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.errors import BridgeError, DifferentiationError

pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:.*jax.vmap calls torch once for each element"),
]

X = jnp.array([[0.3, -1.0, 2.0], [1.0, 0.5, -0.2], [0.1, 0.2, 0.3], [1.5, -0.4, 0.7]])
V = jnp.array([[1.0, 0.3, -0.2], [0.4, -1.0, 2.0], [0.5, 0.1, 0.2], [-0.3, 0.8, 1.0]])
TARGET = torch.tensor([0, 2, 1, 0])
WEIGHT = torch.tensor([[0.2, -0.4, 1.0], [0.5, 0.1, -0.3], [-1.0, 0.6, 0.4]])
ERRORS = (BridgeError, jax.errors.JaxRuntimeError)


class CubeBySlope(torch.autograd.Function):
    """Its forward computes the gradient, as fused losses do."""

    @staticmethod
    def forward(ctx, x):
        ctx.slope = 3 * x**2
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        return ctx.slope * gradient


class CubeBySavedSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(3 * x**2)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (slope,) = ctx.saved_tensors
        return slope * gradient


class CubeByInnerGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad((y**3).sum(), y)
        ctx.save_for_backward(slope)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (slope,) = ctx.saved_tensors
        return slope * gradient


class CubeDetached(torch.autograd.Function):
    """What its backward gives is no function of anything, for torch."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x.detach() ** 2 * gradient


class CubeByInput(torch.autograd.Function):
    """One that hides nothing."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient


class CubeWithoutTangent(torch.autograd.Function):
    """Its forward mode says that nothing moves."""

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * gradient

    @staticmethod
    def jvp(ctx, tangent):
        return None


class ExpByOutput(torch.autograd.Function):
    """What it saves is its own result, from which autograd leads on."""

    @staticmethod
    def forward(ctx, x):
        found = x.exp()
        ctx.save_for_backward(found)
        return found

    @staticmethod
    def backward(ctx, gradient):
        (found,) = ctx.saved_tensors
        return found * gradient


class Masked(torch.autograd.Function):
    """Saves what only decides."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward((x > 0).to(x.dtype), x)
        return x.clamp(min=0) ** 2

    @staticmethod
    def backward(ctx, gradient):
        mask, x = ctx.saved_tensors
        return 2 * mask * x * gradient


@torch.library.custom_op("own_backwards::cube", mutates_args=())
def library_cube(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x**3, 3 * x**2


@library_cube.register_fake
def _(x):
    return torch.empty_like(x), torch.empty_like(x)


def _keep(ctx, inputs, output):
    ctx.slope = output[1]
    ctx.mark_non_differentiable(output[1])


library_cube.register_autograd(lambda ctx, one, _: ctx.slope * one, setup_context=_keep)


def chunked_loss(**options):
    functional = torch.nn.functional
    if not hasattr(functional, "linear_cross_entropy"):
        pytest.skip("this torch has none")
    from torch.nn.modules.linear_cross_entropy_options import LinearCrossEntropyOptions

    chosen = LinearCrossEntropyOptions(batch_chunk_size=2, **options)
    return lambda x: functional.linear_cross_entropy(x, WEIGHT, TARGET, options=chosen)


def by_values(function):
    return lambda x: function(x) if bool(x.sum() < 100) else x


def cube(x):
    return x**3


HIDING = {
    "attribute": CubeBySlope.apply,
    "saved": CubeBySavedSlope.apply,
    "inner gradient": CubeByInnerGradient.apply,
    "detached": CubeDetached.apply,
    "library": lambda x: library_cube(x)[0],
    "checkpointed": lambda x: checkpoint(CubeBySlope.apply, x, use_reentrant=False),
    "by values": by_values(CubeBySlope.apply),
}
OPEN = {
    "input": (CubeByInput.apply, cube),
    "no tangent": (CubeWithoutTangent.apply, cube),
    "output": (ExpByOutput.apply, torch.exp),
    "mask": (Masked.apply, lambda x: x.clamp(min=0) ** 2),
    "checkpointed": (lambda x: checkpoint(CubeByInput.apply, x, use_reentrant=False), cube),
    "by values": (by_values(CubeByInput.apply), cube),
}
ways = pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])


def first_orders(loss):
    yield "grad", jax.grad(loss)
    yield "jvp", lambda x: jax.jvp(loss, (x,), (V,))[1]
    yield "jacfwd", jax.jacfwd(loss)
    yield "linearize", lambda x: jax.linearize(loss, x)[1](V)


def second_orders(loss):
    yield "hessian", jax.hessian(loss)
    yield "jvp of grad", lambda x: jax.jvp(jax.grad(loss), (x,), (V,))[1]
    yield "grad of grad", jax.grad(lambda x: (jax.grad(loss)(x) * V).sum())
    yield "grad of jvp", jax.grad(lambda x: jax.jvp(loss, (x,), (V,))[1])
    yield "jvp of jvp", lambda x: jax.jvp(lambda x: jax.jvp(loss, (x,), (V,))[1], (x,), (V,))[1]


def called(call, jit):
    return jax.block_until_ready((jax.jit(call) if jit else call)(X))


def loss_of(function):
    wrapped = jax_callable(function)
    wrapped(X)
    return lambda x: (wrapped(x) * jnp.sin(1 + x)).sum()


def refused_or_right(calls, wanted, jit):
    """Which of some calls gave the right value; the others raised."""
    right = []
    for (name, call), (_, twin) in zip(calls, wanted, strict=True):
        try:
            found = called(call, jit)
        except ERRORS:
            continue
        assert_close(found, called(twin, jit), label=name)
        right.append(name)
    return right


@ways
@pytest.mark.parametrize("name", HIDING)
def test_first_orders_are_right_and_second_ones_are_refused(name, jit):
    mine, plain = loss_of(HIDING[name]), loss_of(cube)
    right = refused_or_right(first_orders(mine), first_orders(plain), jit)
    assert right == ["grad", "jvp", "jacfwd", "linearize"]
    assert refused_or_right(second_orders(mine), second_orders(plain), jit) == []


def test_the_words_say_what_is_wrong_with_the_backward():
    loss = loss_of(HIDING["saved"])
    with pytest.raises(BridgeError, match=r"not differentiable .*its forward has computed"):
        jax.grad(lambda x: (jax.grad(loss)(x) * V).sum())(X)


@ways
@pytest.mark.parametrize("name", OPEN)
def test_a_backward_that_hides_nothing_is_right_in_every_order(name, jit):
    function, plain = OPEN[name]
    mine, twin = loss_of(function), loss_of(plain)
    assert len(refused_or_right(first_orders(mine), first_orders(twin), jit)) == 4
    assert len(refused_or_right(second_orders(mine), second_orders(twin), jit)) == 5


@ways
@pytest.mark.parametrize("options", [{}, {"allow_retain_graph": True}], ids=["once", "kept"])
def test_a_loss_that_computes_its_gradients_in_chunks(options, jit):
    mine = jax_callable(chunked_loss(**options))
    twin = jax_callable(lambda x: cross_entropy(linear(x, WEIGHT), TARGET))
    right = refused_or_right(first_orders(mine), first_orders(twin), jit)
    assert right == ["grad", "jvp", "jacfwd", "linearize"]
    assert refused_or_right(second_orders(mine), second_orders(twin), jit) == []


# --- backwards that cut the way back --------------------------------------------------------------


def cut_by_no_grad(x, gradient):
    with torch.no_grad():
        return gradient * 3 * x**2


def cut_by_detach(x, gradient):
    return gradient.detach() * 3 * x**2


def cut_by_data(x, gradient):
    return gradient.data * 3 * x**2


def cut_by_inference_mode(x, gradient):
    with torch.inference_mode():
        found = gradient * 3 * x**2
    return found.clone()


def cut_by_grad(x, gradient):
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        return torch.autograd.grad(y**3, y, gradient)[0]


def cut_by_backward(x, gradient):
    with torch.enable_grad():
        y = x.detach().requires_grad_()
        (y**3).backward(gradient)
        return y.grad


def uncut(x, gradient):
    return gradient * 3 * x**2


def cube_with(backward):
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            return backward(*ctx.saved_tensors, gradient)

    return Cube.apply


CUTS = [cut_by_no_grad, cut_by_detach, cut_by_data, cut_by_inference_mode, cut_by_grad]
TANGENTS = {
    "jvp": lambda g, x: jax.jvp(g, (x,), (x,))[1],
    "beside": lambda g, x: jax.jvp(lambda x: g(x) + x, (x,), (x,))[1] - x,
    "linearize": lambda g, x: jax.linearize(g, x)[1](x),
    "jacfwd": lambda g, x: jax.jacfwd(g)(x) @ x,
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("backend", ["eager", "graph", "xla"])
@pytest.mark.parametrize("way", TANGENTS)
@pytest.mark.parametrize("backward", [*CUTS, cut_by_backward, uncut], ids=lambda b: b.__name__)
def test_tangents_are_never_zeros_of_a_way_that_is_cut(backward, way, backend, jit):
    x = jnp.array([1.0, 2.0, -0.5])
    g = jax_callable(cube_with(backward), backend=backend)
    push = functools.partial(TANGENTS[way], g)
    push = jax.jit(push) if jit else push
    if backward is uncut:
        assert_close(push(x), 3 * x**3)
        return
    with pytest.raises((DifferentiationError, jax.errors.JaxRuntimeError, ValueError)):
        jax.block_until_ready(push(x))
    assert_close(jax.grad(lambda x: g(x).sum())(x), 3 * x**2)


def cut_by_copy(x, gradient):
    found = torch.empty_like(gradient)
    found.data.copy_(gradient * 3 * x**2)
    return found


SECOND = {
    "hessian": lambda f, x: jnp.diag(jax.hessian(f)(x)),
    "reverse twice": lambda f, x: jax.grad(lambda x: jax.grad(f)(x).sum())(x),
}


@pytest.mark.parametrize("way", SECOND)
@pytest.mark.parametrize("backend", ["eager", "graph", "xla"])
@pytest.mark.parametrize(
    "backward", [*CUTS, cut_by_backward, cut_by_copy, uncut], ids=lambda b: b.__name__
)
def test_second_derivatives_likewise(backward, backend, way):
    x = jnp.array([1.0, 2.0, -0.5])
    g = jax_callable(cube_with(backward), backend=backend)
    second = functools.partial(SECOND[way], lambda x: g(x).sum())
    if backward is uncut:
        assert_close(second(x), 6 * x)
        return
    with pytest.raises((DifferentiationError, jax.errors.JaxRuntimeError, ValueError)):
        jax.block_until_ready(second(x))


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_batches_of_cotangents_go_one_by_one_through_backwards_of_its_own(jit):
    """Torch crashes in one that uses ``.data`` where it makes a batch of them."""
    x = jnp.array([1.0, 2.0, -0.5])
    jacobian = jax.jacrev(jax_callable(cube_with(lambda x, g: g.data * 3 * x.data**2)))
    found = (jax.jit(jacobian) if jit else jacobian)(x)
    assert_close(found, jnp.diag(3 * x**2))
