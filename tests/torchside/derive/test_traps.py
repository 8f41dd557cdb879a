"""Ways in which derivatives were silently wrong before, each as a test of its own name."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import DifferentiationError, jax_callable

# Torch cannot batch some of the functions here, which is said once a callable.
pytestmark = [pytest.mark.derivatives, pytest.mark.filterwarnings("ignore:.*once for each element")]


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_the_wrong_hessian_of_a_differentiated_backward_graph(jit):
    """The backward graph of tanh holds a detached copy of its result, so that differentiating
    that graph again loses a term."""
    wrapped = jax_callable(lambda x: torch.tanh(x).pow(2).sum())
    x = random(5)
    twin = jax.hessian(lambda x: (jnp.tanh(x) ** 2).sum())(x)
    for order in (
        jax.hessian,
        lambda f: jax.jacrev(jax.jacrev(f)),
        lambda f: jax.jacrev(jax.jacfwd(f)),
        lambda f: jax.jacfwd(jax.jacfwd(f)),
    ):
        assert_close(jit(order(wrapped))(x), twin)


def test_a_batched_backward_stays_differentiable_by_the_inputs():
    """A batching rule that collapses the linear call into a plain call on residuals gives a
    third derivative without the part that goes through them."""
    wrapped = jax_callable(lambda x: torch.sin(x) * x[0])
    twin = lambda x: jnp.sin(x) * x[0]  # noqa: E731
    x = random(4)
    third = lambda f: jax.jacfwd(jax.jacrev(jax.jacrev(f)))  # noqa: E731
    assert_close(third(wrapped)(x), third(twin)(x))


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, torch
from comparing import assert_close
from jax.sharding import AxisType, PartitionSpec as P
from jaxtorch_bridge import jax_callable

mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
layer = jax_callable(lambda x, w: torch.tanh(x @ w))
rng = np.random.default_rng(0)
draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
x, w, dx, dw = draw(8, 3), draw(3, 2), draw(8, 3), draw(3, 2)

def total(f):
    inner = lambda x, w: jax.lax.psum((f(x, w) ** 2).sum(), "d")
    return jax.shard_map(
        inner, mesh=mesh, in_specs=(P("d"), P()), out_specs=P(), check_vma=CHECK)

sharded = total(layer)
twin = lambda x, w: (jnp.tanh(x @ w) ** 2).sum()
hvp = lambda f: lambda x, w: jax.jvp(jax.grad(f, (0, 1)), (x, w), (dx, dw))[1]
rev = lambda f: lambda x, w: jax.grad(
    lambda x, w: sum((g * t).sum() for g, t in zip(jax.grad(f, (0, 1))(x, w), (dx, dw))),
    (0, 1))(x, w)
for jit in (lambda f: f, jax.jit):
    assert_close(jit(jax.grad(sharded, (0, 1)))(x, w), jax.grad(twin, (0, 1))(x, w))
    assert_close(jit(lambda x, w: jax.jvp(sharded, (x, w), (dx, dw)))(x, w),
                 jax.jvp(twin, (x, w), (dx, dw)))
    assert_close(jit(hvp(sharded))(x, w), hvp(twin)(x, w))
    assert_close(jit(rev(sharded))(x, w), rev(twin)(x, w))
print("right")
"""


@pytest.mark.parametrize("check_vma", [True, False])
def test_the_missing_psum_of_a_replicated_input(check_vma, run_python):
    """An output that forgets over which mesh axes it varies costs the replicated input's
    gradient its sum; here in first and second order and in forward mode."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    assert run_python(f"CHECK = {check_vma}\n{SHARDED}", env=flags).strip() == "right"


def test_complex_gradients_are_not_silently_zero():
    wrapped = jax_callable(lambda z: (z * z.conj()).real.sum())
    z = random(3) + 1j * random(3, seed=1)
    assert_close(jax.grad(wrapped)(z), 2 * z.conj())


def test_a_backward_that_leaves_torch_has_no_second_derivative():
    """Its first derivative is right; what torch did not record must not count as constant."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return torch.from_numpy(3 * x.detach().numpy() ** 2) * gradient.detach()

    wrapped = jax_callable(lambda x: Cube.apply(x).sum())
    x = random(3)
    assert_close(jax.grad(wrapped)(x), 3 * x**2)
    for second in (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f)), jax.jacfwd):
        with pytest.raises(
            Exception, match=r"not differentiable|recorded no way|no way to differentiate"
        ) as caught:
            jax.block_until_ready(second(wrapped)(x))
        assert isinstance(caught.value, Exception)
    assert issubclass(DifferentiationError, Exception)


def test_a_zero_cotangent_is_not_materialised():
    """The backward of an output that nobody used is not run."""
    wrapped = jax_callable(lambda x, w: (torch.tanh(x), torch.linalg.inv(w) @ x))
    x, w = random(3), random(3, 3)
    jaxpr = jax.make_jaxpr(jax.grad(lambda x: wrapped(x, w)[0].sum()))(x)
    (linear,) = [eqn for eqn in jaxpr.eqns if eqn.primitive.name == "torch_linear_call"]
    assert linear.params["outs"] == (0,)
    linearized = linear.params["linearized"]
    assert linear.params["ins"] == linearized.wrt == (0,)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        jax.block_until_ready(jax.grad(lambda x: wrapped(x, w)[0].sum())(x))
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts["TanhBackward0"] == 1
    assert not any("MvBackward" in name or "Inverse" in name for name in counts)
    assert_close(jax.grad(lambda x: wrapped(x, w)[0].sum())(x), 1 - jnp.tanh(x) ** 2)
    assert_close(jax.grad(lambda x: wrapped(x, w)[1].sum())(x), jnp.linalg.inv(w).sum(0))


RECOMPUTED = {
    "schema": "jaxtorch/1", "name": "again", "version": "1.0.0", "residuals": "recompute"
}  # fmt: skip


def cholesky(x):
    return torch.linalg.cholesky(x).sum()


def asserted(x):
    torch._assert_async(x[0, 0] > 0)
    return x.sum()


def asserted_with_words(x):
    torch._assert_async(x[0, 0] > 0, "not positive-definite")
    return x.sum()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (cholesky, "not positive-definite"),
        (asserted, "single nonzero value"),
        (asserted_with_words, "not positive-definite"),
    ],
)
@pytest.mark.parametrize("graph", [False, True], ids=["tape", "graph"])
def test_a_failing_check_fails_in_captured_graphs_too(function, words, graph):
    """Graphs drop ops that nobody reads, and checks are such."""
    spec = {**RECOMPUTED, "inputs": {"x": "float32[n, n]"}, "outputs": {"y": "float32[]"}}
    wrapped = jax_callable(function, spec=spec if graph else None)
    good, bad = jnp.eye(2) * 2, -jnp.eye(2)
    value, gradient = jax.value_and_grad(wrapped)(good)
    assert ("recompute with torch.func" if graph else "tape: ") in wrapped.explain(good)
    assert jnp.isfinite(value)
    assert jnp.isfinite(gradient).all()
    assert jnp.isfinite(jax.jvp(wrapped, (good,), (good,))[1])
    for transformed in (
        jax.value_and_grad(wrapped),
        lambda x: jax.jvp(wrapped, (x,), (x,)),
        lambda x: jax.vmap(wrapped)(x[None]),
    ):
        with pytest.raises(Exception, match=words):
            jax.block_until_ready(transformed(bad))


class CheckedBackwards(torch.autograd.Function):
    """Minus the sum, by a backward that factorizes what it is given."""

    @staticmethod
    def forward(ctx, x):
        return -x.sum()

    @staticmethod
    def backward(ctx, gradient):
        torch.linalg.cholesky(torch.eye(2) * gradient)
        return -gradient.expand(2, 2)


def test_a_check_in_the_backward_fails_there():
    wrapped = jax_callable(CheckedBackwards.apply)
    _, pullback = jax.vjp(wrapped, jnp.eye(2))
    assert "tape: " in wrapped.explain(jnp.eye(2))
    assert_equal(pullback(jnp.float32(2))[0], -2 * np.ones((2, 2)))
    with pytest.raises(Exception, match="not positive-definite"):
        jax.block_until_ready(pullback(jnp.float32(-1)))


@pytest.mark.needs_tapes
def test_checks_are_made_once_a_run():
    """On GPUs each waits for the device."""
    wrapped = jax_callable(cholesky)
    jax.value_and_grad(wrapped)(jnp.eye(2))
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, acc_events=True) as seen:
        jax.block_until_ready(jax.value_and_grad(wrapped)(jnp.eye(2)))
    counts = {event.key: event.count for event in seen.key_averages()}
    assert counts["aten::linalg_cholesky_ex"] == counts["aten::_linalg_check_errors"] == 1


@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2, "bidirectional": True}, {"proj_size": 1}],
    ids=["plain", "layers", "projected"],
)
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_last_states_of_traced_lstms_keep_their_shape(options):
    """In torch before 2.13 a traced LSTM gives them one axis too many, for which a softmax takes
    the batch for the classes."""
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 2, **options)

    def loss(x):
        _, (hidden, cell) = lstm(x)
        return sum((torch.softmax(last[-1], 1) * last[-1]).sum() for last in (hidden, cell))

    spec = {**RECOMPUTED, "inputs": {"x": "float32[t, b, c]"}, "outputs": {"y": "float32[]"}}
    wrapped = jax_callable(loss, spec=spec)
    x, dx = random(4, 2, 3), random(4, 2, 3, seed=1)
    tensor = torch.from_numpy(np.array(x)).requires_grad_()
    expected = loss(tensor)
    expected.backward()
    value, gradient = jax.value_and_grad(wrapped)(x)
    assert_close(value, expected.detach())
    assert_close(gradient, tensor.grad)
    assert "recompute with torch.func.vjp" in wrapped.explain(x)
    assert_close(jax.jvp(wrapped, (x,), (dx,))[1], (np.array(dx) * tensor.grad.numpy()).sum())
    assert_close(jax.vmap(wrapped)(x[None]), [float(expected.detach())])


def test_once_differentiable_backwards_of_the_new_style_are_no_constants():
    """Under torch.func such a backward has zero derivative without a word."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x**3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, gradient):
            return 3 * ctx.saved_tensors[0] ** 2 * gradient

    wrapped = jax_callable(lambda x: Cube.apply(x).sin().sum())
    x = random(3)
    assert_close(jax.grad(wrapped)(x), jax.grad(lambda x: jnp.sin(x**3).sum())(x))
    for second in (
        lambda x: jax.jvp(wrapped, (x,), (x,)),
        jax.hessian(wrapped),
        jax.jacrev(jax.grad(wrapped)),
        lambda x: jax.jvp(jax.grad(wrapped), (x,), (x,)),
    ):
        with pytest.raises(DifferentiationError, match="not differentiable"):
            second(x)


def test_trying_fused_attention_twice_warns_of_nothing(capfd):
    """It has no second derivative, so it is replaced; torch tells that of its own to stderr."""
    q = random(1, 2, 3, 4)
    mask = jnp.ones((1, 1, 1, 3), bool)
    attend = jax_callable(
        lambda q, mask: torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)
    )
    second = jax.grad(jax.grad(lambda s: (attend(q * s, mask) ** 2).sum()))(1.0)
    weights = lambda q: jax.nn.softmax(q @ q.swapaxes(-1, -2) / 2.0)  # noqa: E731
    twin = jax.grad(jax.grad(lambda s: ((weights(q * s) @ (q * s)) ** 2).sum()))(1.0)
    assert_close(second, twin)
    assert "UserWarning" not in capfd.readouterr().err


@pytest.mark.parametrize(("dim", "index"), [(0, 0), (-1, -1)])
def test_the_gradient_of_a_batched_select_scatter(dim, index):
    """torch.vmap makes it a scatter with repeated places, whose gradient counts each of them."""

    def function(x, y):
        return torch.select_scatter(x, x.select(dim, index) * y, dim, index)

    def twin(x, y):
        place = (index,) if dim == 0 else (..., index)
        return x.at[place].set(x[place] * y)

    x, y = random(4, 3, 3), random(4, 3, seed=1)
    wrapped = jax_callable(function)
    found, expected = (
        jax.grad(lambda x, y, f=f: (jax.vmap(f)(x, y) ** 2).sum(), (0, 1))(x, y)
        for f in (wrapped, twin)
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("axis", [0, 1, 4])
def test_fused_attention_of_a_batch_along_any_axis(axis):
    """Torch's kernel for CPUs takes neighbours along the last axis for neighbours in memory."""
    attend = jax_callable(
        lambda q: torch.nn.functional.scaled_dot_product_attention(q, q.cos(), q.sin()).exp()
    )
    weights = lambda q: jax.nn.softmax(q @ jnp.cos(q).swapaxes(-1, -2) / 2.0)  # noqa: E731
    twin = lambda q: jnp.exp(weights(q) @ jnp.sin(q))  # noqa: E731
    rows = random(5, 1, 2, 3, 4)
    batch = jnp.moveaxis(rows, 0, axis)
    for wrap in (lambda f: f, lambda f: jax.grad(lambda q: f(q).sum())):
        found = jax.vmap(wrap(attend), in_axes=axis)(batch)
        assert_close(found, jax.vmap(wrap(twin))(rows))


@pytest.fixture(scope="module")
def twice():
    """A custom operation that doubles, without a derivative."""
    library = torch.library.Library("jaxtorch_traps", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x * 2, "CPU")
    library.impl("twice", torch.empty_like, "Meta")
    yield torch.ops.jaxtorch_traps.twice
    library._destroy()


@pytest.mark.parametrize("beside", [lambda x: 0, torch.sin], ids=["alone", "beside"])
@pytest.mark.parametrize(
    "transform",
    [
        lambda f: jax.grad(lambda x: f(x).sum()),
        lambda f: lambda x: jax.jvp(f, (x,), (x,)),
        lambda f: lambda x: jax.linearize(f, x)[1](x),
        lambda f: jax.hessian(lambda x: f(x).sum()),
        lambda f: jax.vmap(jax.grad(lambda x: f(x))),
    ],
    ids=["grad", "jvp", "linearize", "hessian", "vmap"],
)
@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_operation_without_a_derivative_is_no_constant(twice, beside, transform, jit):
    """Torch warns, if at all, and leaves out this part of the gradient."""
    wrapped = jax_callable(lambda x: twice(x) + beside(x))
    assert_close(wrapped(jnp.zeros(3)), 0)
    with pytest.raises(DifferentiationError, match="an operation inside has no derivative in"):
        jit(transform(wrapped))(random(3))


def test_an_operation_without_a_derivative_may_be_left_out(twice):
    wrapped = jax_callable(lambda x: twice(x.detach()) + torch.sin(x))
    x = random(3)
    assert_close(jax.grad(lambda x: wrapped(x).sum())(x), jnp.cos(x))
    assert_close(jax.jvp(wrapped, (x,), (x,))[1], x * jnp.cos(x))
