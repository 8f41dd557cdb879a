"""Reverse mode against torch's own autograd and jax.numpy twins; which rung was taken."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from comparing import assert_close, assert_equal
from jaxtorch_bridge import DifferentiationError, jax_callable

pytestmark = pytest.mark.derivatives

F = torch.nn.functional


def random(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def attention(q, k, v):
    return F.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, dim=-1) @ v


def in_place_inside(x):
    y = x * 2
    y[:, 0] = y[:, 1] * 3
    y[1:].mul_(2)
    y.relu_()
    return y


def some_outputs(x, w):
    y = x @ w
    return {
        "y": y,
        "index": y.argmax(1),
        "positive": y > 0,
        "pair": (y.sum(), x.shape[0] * torch.ones(2)),
    }


CASES = {
    "matmul": (lambda x, w: x @ w, [(4, 3), (3, 5)]),
    "gelu_mlp": (lambda x, a, b: F.gelu(x @ a) @ b, [(4, 3), (3, 8), (8, 2)]),
    "attention": (attention, [(2, 4, 8), (2, 6, 8), (2, 6, 8)]),
    "conv_pool": (
        lambda x, w, b: F.max_pool2d(F.relu(F.conv2d(x, w, b, padding=1)), 2),
        [(2, 1, 8, 8), (4, 1, 3, 3), (4,)],
    ),
    "layer_norm": (lambda x, g, b: F.layer_norm(x, (6,), g, b), [(5, 6), (6,), (6,)]),
    "in_place_inside": (in_place_inside, [(4, 3)]),
    "views": (lambda x: x.transpose(0, 1)[1:].expand(2, 2, 4), [(4, 3)]),
    "permuted_residual": (
        lambda x: (x.permute(2, 0, 1).contiguous().tanh().permute(1, 2, 0)).exp(),
        [(2, 3, 4)],
    ),
    "expanded_residual": (lambda x: (x.sum(0, keepdim=True).expand(4, 3) * x).sin(), [(4, 3)]),
    "sliced_residual": (lambda x: x[:, ::3].sin() * x[:, 0:1].exp(), [(4, 9)]),
    "aliases": (lambda x: (x, x, x.T, x.reshape(-1)[2:]), [(3, 2)]),
    "rank_0": (lambda x: x.sin() * x, [()]),
    "empty": (lambda x: (x * 2).sum(), [(0, 3)]),
    "gather": (lambda x: x.gather(1, x.argsort(1)), [(3, 4)]),
    "cumulative": (lambda x: torch.cummax(x, 1)[0].cumsum(1), [(3, 4)]),
    "norm": (lambda x: torch.linalg.norm(x) + x.std(0), [(5, 3)]),
    "einsum": (
        lambda a, b: torch.einsum("bij,bjk->bik", a, b).logsumexp(-1),
        [(2, 3, 4), (2, 4, 5)],
    ),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_agree_with_torch(name, jit):
    function, shapes = CASES[name]
    arrays = [random(*shape, seed=i) for i, shape in enumerate(shapes)]
    wrapped = jax_callable(function)

    def loss(*arrays):
        leaves = jax.tree.leaves(wrapped(*arrays))
        return sum(
            (leaf * (1 + jnp.arange(leaf.size).reshape(leaf.shape))).sum() for leaf in leaves
        )

    call = jax.value_and_grad(loss, argnums=tuple(range(len(arrays))))
    value, gradients = (jax.jit(call) if jit else call)(*arrays)
    tensors = [torch.from_numpy(np.array(a)).requires_grad_() for a in arrays]
    result = function(*tensors)
    leaves = result if isinstance(result, tuple) else (result,)
    torch_loss = sum(
        (leaf * (1 + torch.arange(leaf.numel()).reshape(leaf.shape))).sum() for leaf in leaves
    )
    wanted = torch.autograd.grad(torch_loss, tensors)
    # Little is left of terms of about this size.
    assert_close(value, torch_loss.detach(), scale=1)
    for gradient, tensor in zip(gradients, wanted, strict=True):
        assert_close(gradient, tensor, scale=1)
    assert "tape: " in wrapped.explain(*arrays)


@pytest.mark.parametrize(
    "name", ["gelu_mlp", "attention", "permuted_residual", "norm", "expanded_residual"]
)
def test_gradients_agree_with_finite_differences(name):
    function, shapes = CASES[name]
    with jax.enable_x64(True):
        arrays = [random(*shape, seed=i, dtype=np.float64) for i, shape in enumerate(shapes)]
        check_grads(jax_callable(function), arrays, order=1, modes=["rev"])


def count_forwards(function):
    runs = {"forward": 0, "backward": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x.clone()

        @staticmethod
        def setup_context(ctx, inputs, output):
            pass

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    return runs, Counted


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.needs_tapes
def test_one_forward_and_one_backward(jit):
    """Counted by the ops that torch runs: nothing is computed twice."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.ops = []

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.ops.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    wrapped = jax_callable(lambda x, w: torch.tanh(x @ w))
    x, w = random(4, 3), random(3, 5)
    call = jax.value_and_grad(lambda x, w: wrapped(x, w).sum(), argnums=(0, 1))
    call = jax.jit(call) if jit else call
    jax.block_until_ready(call(x, w))
    with Count() as count:
        jax.block_until_ready(call(x, w))
    assert count.ops.count("tanh") == 1
    assert count.ops.count("tanh_backward") == 1
    assert count.ops.count("mm") == 3  # one forward, two backward


@pytest.mark.needs_tapes
def test_only_the_gradients_asked_for_are_computed():
    from torch.utils._python_dispatch import TorchDispatchMode

    products = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.overloadpacket.__name__ == "mm":
                products.append(1)
            return func(*args, **(kwargs or {}))

    wrapped = jax_callable(lambda x, w: x @ w)
    x, w = random(4, 3), random(3, 5)
    call = jax.jit(jax.grad(lambda x, w: wrapped(x, w).sum(), argnums=1))
    call(x, w)
    with Count():
        call(x, w)
    # One for the forward, whose record is kept, and one for the one gradient.
    assert len(products) == 2
    assert wrapped.explain(x, w).count("by w: tape") == 1


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_integer_and_bool_results_beside_float_ones(jit):
    wrapped = jax_callable(some_outputs)
    x, w = random(4, 3), random(3, 5)

    def loss(x, w):
        found = wrapped(x, w)
        return (
            (found["y"] ** 2).sum() * found["index"].sum()
            + found["positive"].sum()
            + found["pair"][0]
        )

    def twin(x, w):
        y = x @ w
        return (y**2).sum() * y.argmax(1).sum() + (y > 0).sum() + y.sum()

    call, reference = jax.grad(loss, argnums=(0, 1)), jax.grad(twin, argnums=(0, 1))
    for mine, theirs in zip((jax.jit(call) if jit else call)(x, w), reference(x, w), strict=True):
        assert_close(mine, theirs)


def test_integer_inputs_and_results_that_depend_on_nothing():
    wrapped = jax_callable(lambda x, i: (x[i], i * 2, torch.ones(3), x.detach()))
    x, i = random(5, 3), jnp.asarray([0, 2, 2])

    def loss(x, i):
        rows, doubled, ones, detached = wrapped(x, i)
        return rows.sum() + doubled.sum() + ones.sum() + (detached**2).sum()

    gradient = jax.grad(loss)(x, i)
    assert_equal(gradient, np.array([1, 0, 2, 0, 0])[:, None] * np.ones((1, 3)))
    tangents = jax.grad(loss, argnums=(0, 1), allow_int=True)(x, i)[1]
    assert tangents.dtype == jax.dtypes.float0


def test_vjp_of_a_linear_function_with_unused_results():
    wrapped = jax_callable(lambda x: (x * 2, x * 3))
    x = random(3)
    _, pull = jax.vjp(lambda x: wrapped(x)[1], x)
    assert_close(pull(jnp.ones(3))[0], 3 * np.ones(3))


def test_inside_scan_checkpoint_and_custom_vjp():
    step = jax_callable(lambda x, w: torch.tanh(x @ w))

    def twin(x, w):
        return jnp.tanh(x @ w)

    x, w = random(2, 3), random(3, 3, seed=1)

    def scanned(f):
        return lambda w: jax.lax.scan(lambda c, _: (f(c, w), None), x, length=4)[0].sum()

    assert_close(jax.grad(scanned(step))(w), jax.grad(scanned(twin))(w))
    assert_close(
        jax.jit(jax.grad(lambda w: jax.checkpoint(step)(x, w).sum()))(w),
        jax.grad(lambda w: twin(x, w).sum())(w),
    )
    assert_close(
        jax.vmap(jax.grad(lambda x: step(x[None], w).sum()))(x),
        jax.vmap(jax.grad(lambda x: twin(x[None], w).sum()))(x),
    )


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_dropout_has_one_mask_forward_and_backward(jit):
    wrapped = jax_callable(lambda x: F.dropout(x, 0.5))
    x = jnp.ones(200)
    call = jax.value_and_grad(lambda x: (lambda y: (y.sum(), y))(wrapped(x)), has_aux=True)
    (_, result), gradient = (jax.jit(call) if jit else call)(x)
    assert_equal(result, gradient)  # y = mask * 2 * x at x = 1


COMPLEX = {
    "square": (lambda z: (z * z).sum().real, lambda z: (z * z).sum().real),
    "mixed": (lambda z: (z * z.conj() * z).real.sum(), lambda z: (z * z.conj() * z).real.sum()),
    "imaginary": (lambda z: (z.exp() * 1j).imag.sum(), lambda z: (jnp.exp(z) * 1j).imag.sum()),
    "absolute": (lambda z: z.abs().sum(), lambda z: jnp.abs(z).sum()),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_gradients_are_in_jaxs_convention(name):
    mine, twin = COMPLEX[name]
    z = random(3) + 1j * random(3, seed=1)
    assert_close(jax.grad(jax_callable(mine))(z), jax.grad(twin)(z))


def test_complex_results_and_holomorphic_functions():
    wrapped, twin = jax_callable(lambda z: z.sin() * z.conj()), lambda z: jnp.sin(z) * jnp.conj(z)
    z = random(3) + 1j * random(3, seed=1)
    cotangent = random(3, seed=2) + 1j * random(3, seed=3)
    mine, theirs = jax.vjp(wrapped, z)[1](cotangent), jax.vjp(twin, z)[1](cotangent)
    assert_close(mine[0], theirs[0])
    assert_close(
        jax.grad(lambda z: jax_callable(lambda z: (z**3).sum())(z), holomorphic=True)(z), 3 * z**2
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_gradients_have_the_inputs_dtype(dtype):
    with jax.enable_x64(True):
        x = random(4, 3).astype(dtype)
        gradient = jax.grad(lambda x: jax_callable(lambda x: x.float().sin().sum())(x))(x)
        expected = jnp.cos(x.astype("float64")).astype(dtype)
        assert_close(gradient, expected, computed_in="float32")


def test_64_bit_residuals_and_results_while_x64_is_off():
    """max_pool2d saves int64 indices; the second function computes in float64 inside."""
    pooled = jax_callable(lambda x: F.max_pool2d(x, 2).sin())
    x = random(1, 1, 4, 4)
    with jax.enable_x64(False):
        gradient = jax.jit(jax.grad(lambda x: pooled(x).sum()))(x)
        assert "tape: " in pooled.explain(x)
        double = jax_callable(lambda x: x.double().sin().exp())
        assert_close(
            jax.grad(lambda x: double(x).sum())(x), jax.grad(lambda x: jnp.exp(jnp.sin(x)).sum())(x)
        )
    tensor = torch.from_numpy(np.array(x)).requires_grad_()
    F.max_pool2d(tensor, 2).sin().sum().backward()
    assert_close(gradient, tensor.grad)


# --- what cannot be traced, and what is asked for -----------------------------------------------


class OldStyle(torch.autograd.Function):
    """A custom function in the old style: ctx, no setup_context."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")
def test_functions_that_look_at_values_are_recorded_too():
    def function(x):
        assert torch.isfinite(x).all()
        return x**2 if x.sum() > 0 else -x

    wrapped = jax_callable(function)
    x = jnp.asarray([1.0, 2.0])
    assert_close(jax.grad(lambda x: wrapped(x).sum())(x), 2 * x)
    assert_close(jax.grad(lambda x: wrapped(x).sum())(-x), -np.ones(2))
    assert_close(jax.jit(jax.grad(lambda x: wrapped(x).sum()))(x), 2 * x)
    assert "by x: tape: the function runs once" in wrapped.explain(x)


def test_old_style_custom_functions():
    wrapped = jax_callable(lambda x: OldStyle.apply(x))
    x = random(4)
    assert_close(jax.grad(lambda x: wrapped(x).sum())(x), 3 * x**2)


def test_a_contract_may_ask_for_recomputing():
    spec = {
        "schema": "jaxtorch/1", "name": "cube", "version": "1.0.0", "residuals": "recompute",
        "inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"},
    }  # fmt: skip
    wrapped = jax_callable(lambda x: x**3, spec=spec)
    x = random(4)
    assert_close(jax.grad(lambda x: wrapped(x).sum())(x), 3 * x**2)
    assert "not tape: the contract says `residuals: recompute`" in wrapped.explain(x)


def test_a_contract_may_forbid_derivatives():
    spec = {
        "schema": "jaxtorch/1", "name": "flat", "version": "1.0.0", "vjp_depth": 0,
        "inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"},
    }  # fmt: skip
    with pytest.raises(
        DifferentiationError, match=r"flat@1\.0\.0: expected no derivative.*vjp_depth: 0"
    ):
        jax.grad(lambda x: jax_callable(lambda x: x * 2, spec=spec)(x).sum())(random(3))


def test_batch_norm_in_training_updates_its_statistics_once():
    torch.manual_seed(0)
    norm, twin = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    wrapped = jax_callable(norm)
    x = random(6, 3)
    gradient = jax.grad(lambda x: (wrapped(x) ** 3).sum())(x)
    tensor = torch.from_numpy(np.array(x)).requires_grad_()
    (twin(tensor) ** 3).sum().backward()
    assert_close(gradient, tensor.grad)
    assert int(norm.num_batches_tracked) == 1
    assert_close(norm.running_mean, twin.running_mean)
    assert "by input: tape: " in wrapped.explain(x)


def test_parameters_changed_in_place_are_seen_by_the_captured_graph():
    linear = torch.nn.Linear(3, 2)
    gradient = jax.jit(jax.grad(lambda x: jax_callable(linear)(x).sum()))
    x = random(4, 3)
    gradient(x)
    with torch.no_grad():
        linear.weight.fill_(5)
    assert_close(gradient(x), np.full((4, 3), 10.0))


RECOMPUTED = {
    "schema": "jaxtorch/1", "name": "layer", "version": "1.0.0", "residuals": "recompute",
    "inputs": {"input": "float32[n, 3]"}, "outputs": {"y": "float32[n, 3]"},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_a_stale_captured_graph_is_refused_not_used():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5))
    wrapped = jax_callable(module, spec=RECOMPUTED)
    gradient = jax.jit(jax.grad(lambda x: wrapped(x).sum()))
    x = random(4, 3)
    gradient(x)
    module.eval()
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="was switched to eval"):
        gradient(x)
    fresh = jax.grad(lambda x: wrapped(x).sum())(x)
    assert_close(fresh, np.tile(module[0].weight.detach().sum(0), (4, 1)))
    module[0].weight = torch.nn.Parameter(torch.ones(3, 3))
    assert_close(jax.grad(lambda x: wrapped(x).sum())(x), np.full((4, 3), 3.0))


def test_python_values_that_change_between_calls():
    factor = 2.0

    def function(x):
        return x * factor

    wrapped = jax_callable(function)
    gradient = jax.grad(lambda x: wrapped(x).sum())
    assert float(gradient(jnp.ones(1))[0]) == 2.0
    factor = 3.0
    assert float(wrapped(jnp.ones(1))[0]) == 3.0
    assert float(gradient(jnp.ones(1))[0]) == 3.0


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
@pytest.mark.needs_tapes
def test_a_compiled_gradient_follows_the_modules_switches_and_parameters():
    """Nothing is captured: it runs the function as it is now, like the value does."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(1.0)).train()
    wrapped = jax_callable(module, name="follows")
    x = random(4, 3)
    gradient = jax.jit(jax.grad(lambda x: wrapped(x).sum()))
    assert_equal(gradient(x), np.zeros((4, 3)))
    module.eval()
    assert_close(gradient(x), np.tile(module[0].weight.detach().sum(0), (4, 1)))
    module[0].weight = torch.nn.Parameter(torch.ones(3, 3))
    assert_close(gradient(x), np.full((4, 3), 3.0))


def test_a_stale_graph_is_refused_also_where_xla_drops_the_forward():
    linear = torch.nn.Linear(3, 3, bias=False)
    wrapped = jax_callable(linear, spec=RECOMPUTED)
    gradient = jax.jit(jax.grad(lambda x: wrapped(x).sum()))
    gradient(jnp.ones((1, 3)))
    linear.weight = torch.nn.Parameter(torch.ones(3, 3))
    with pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="replaced by another"):
        gradient(jnp.ones((1, 3)))


def test_names_that_are_bound_after_wrapping_are_watched():
    wrapped = jax_callable(lambda x: x * late_bound)
    late_bound = torch.tensor(2.0)
    gradient = jax.grad(lambda x: wrapped(x).sum())
    assert float(gradient(jnp.ones(1))[0]) == 2.0
    late_bound = torch.tensor(5.0)
    assert float(gradient(jnp.ones(1))[0]) == 5.0
    assert float(jax.value_and_grad(lambda x: wrapped(x).sum())(jnp.ones(1))[0]) == 5.0
    globals()["LATE_GLOBAL"] = 2.0
    other = jax_callable(lambda x: x * LATE_GLOBAL)  # noqa: F821
    assert float(jax.grad(lambda x: other(x).sum())(jnp.ones(1))[0]) == 2.0
    globals()["LATE_GLOBAL"] = 3.0
    assert float(jax.grad(lambda x: other(x).sum())(jnp.ones(1))[0]) == 3.0


def test_a_function_that_counts_its_calls_is_not_planned_anew_each_time():
    count = 0

    def counting(x):
        nonlocal count
        count += 1
        return x * 2

    wrapped = jax_callable(counting)
    for _ in range(5):
        wrapped(jnp.ones(2))
    assert count == 5  # what the abstract evaluation counted was put back


def forces(positions):
    """An interatomic potential: forces by differentiating the energy inside."""
    positions = positions.detach().requires_grad_()
    energy = (positions[:, None] - positions[None]).pow(2).sum()
    return energy.detach(), -torch.autograd.grad(energy, positions)[0]


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_functions_that_differentiate_inside_run_forward(jit):
    wrapped = jax_callable(forces)
    positions = random(4, 3)
    energy, force = (jax.jit(wrapped) if jit else wrapped)(positions)

    def twin(p):
        return ((p[:, None] - p[None]) ** 2).sum()

    assert_close(energy, twin(positions))
    assert_close(force, -jax.grad(twin)(positions))


def test_a_derivative_that_torch_hides_is_an_error_not_a_zero():
    with pytest.raises(DifferentiationError, match="create_graph=True"):
        jax.grad(lambda p: jax_callable(forces)(p)[1].sum())(random(4, 3))
