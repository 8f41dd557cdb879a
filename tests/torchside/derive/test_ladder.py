"""Which engines each kind of torch code takes, and whether its derivatives are torch's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.torch_version import TorchVersion
from torch.utils.checkpoint import checkpoint

from comparing import assert_close, assert_equal
from jaxtorch_bridge import BridgeWarning, DifferentiationError, jax_callable

F = torch.nn.functional

# TorchScript is deprecated, but much code still ships as it.
# Python 3.13.0 has slow guards, of which dynamo warns.
# Torch cannot batch some of the functions here, which is said once a callable.
pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:.*once for each element"),
    pytest.mark.filterwarnings("ignore:`torch.jit"),
    pytest.mark.filterwarnings("ignore:Guards may run slower"),
]


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def tensors_of(arrays, grad=True):
    return [torch.from_numpy(np.array(array)).requires_grad_(grad) for array in arrays]


def weights_of(leaves):
    """Fixed weights, so that a loss tells every element of every result apart."""
    return [
        np.cos(1.0 + np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape) for leaf in leaves
    ]


def float_leaves(result):
    return [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def jax_loss(function):
    def loss(*arrays):
        leaves = float_leaves(function(*arrays))
        return sum(
            (leaf * weight).sum() for leaf, weight in zip(leaves, weights_of(leaves), strict=True)
        )

    return loss


def torch_leaves(result):
    leaves = torch.utils._pytree.tree_leaves(result)
    return [leaf for leaf in leaves if leaf.is_floating_point()]


def torch_loss(function):
    def loss(*tensors):
        leaves = torch_leaves(function(*tensors))
        weights = weights_of([np.empty(leaf.shape) for leaf in leaves])
        return sum(
            (leaf * torch.from_numpy(w)).sum() for leaf, w in zip(leaves, weights, strict=True)
        )

    return loss


def pullback_of(wrapped, arrays, wrt=None):
    wrt = tuple(range(len(arrays))) if wrt is None else wrt
    op = wrapped._planned(tuple(arrays), {}).op
    return op.family.linearize(op, wrt).engine


def engine_of(wrapped, arrays, wrt=None):
    wrt = tuple(range(len(arrays))) if wrt is None else wrt
    op = wrapped._planned(tuple(arrays), {}).op
    return op.family.pushforward(op, wrt).op.fn.transform


def both_ways(function):
    return [("eager", function), ("jit", jax.jit(function))]


def check_first_order(wrapped, function, arrays):
    """Value and gradients by all arguments, against torch.autograd.grad."""
    tensors = tensors_of(arrays)
    leaves = torch_leaves(function(*tensors))
    loss = torch_loss(function)(*tensors)
    gradients = torch.autograd.grad(loss, tensors)
    for words, call in both_ways(wrapped):
        for mine, theirs in zip(float_leaves(call(*arrays)), leaves, strict=True):
            assert_close(mine, theirs, label=f"value, {words}")
    argnums = tuple(range(len(arrays)))
    for words, call in both_ways(jax.value_and_grad(jax_loss(wrapped), argnums=argnums)):
        value, found = call(*arrays)
        assert_close(value, loss, label=f"loss, {words}")
        for mine, theirs in zip(found, gradients, strict=True):
            assert_close(mine, theirs, label=f"grad, {words}")


def check_forward_mode(wrapped, function, arrays, *, torch_can=True):
    """Tangents against torch, or where torch has no second derivative against its gradients."""
    tangents = [random(*array.shape, seed=50 + i) for i, array in enumerate(arrays)]
    for words, call in both_ways(lambda *a: jax.jvp(wrapped, a, tuple(tangents))):
        values, moved = call(*arrays)
        moved = [
            tangent
            for value, tangent in zip(jax.tree.leaves(values), jax.tree.leaves(moved), strict=True)
            if jnp.issubdtype(value.dtype, jnp.floating)
        ]
        if torch_can:
            _, wanted = torch.autograd.functional.jvp(
                lambda *t: tuple(torch_leaves(function(*t))),
                tuple(tensors_of(arrays)),
                tuple(tensors_of(tangents, grad=False)),
            )
            for mine, theirs in zip(moved, wanted, strict=True):
                assert_close(mine, theirs, label=f"jvp, {words}")
        tensors = tensors_of(arrays)
        gradients = torch.autograd.grad(torch_loss(function)(*tensors), tensors)
        wanted = sum(
            float((g * torch.from_numpy(np.array(t))).sum())
            for g, t in zip(gradients, tangents, strict=True)
        )
        weights = weights_of(moved)
        assert_close(
            sum((m * w).sum() for m, w in zip(moved, weights, strict=True)),
            wanted,
            scale=1,
            label=f"jvp, {words}",
        )


def check_second_order(wrapped, function, arrays, *, thorough):
    """Forwards over backwards by the first argument; thorough: backwards over backwards as well."""
    first, rest = arrays[0], arrays[1:]
    others = tensors_of(rest, grad=False)
    hessian = torch.autograd.functional.hessian(
        lambda t: torch_loss(function)(t, *others), tensors_of([first])[0]
    )
    loss = jax_loss(wrapped)
    bend = jax.hessian(loss) if thorough else jax.jit(jax.hessian(loss))
    assert_close(bend(first, *rest), hessian, label="hessian")
    if not thorough:
        return
    v = random(*first.shape, seed=9)
    wanted = np.tensordot(hessian.numpy(), np.asarray(v), axes=first.ndim)

    def slope(x):
        return jnp.vdot(jax.grad(loss)(x, *rest), v)

    bent = jax.jit(jax.grad(slope))(first)
    assert_close(bent, wanted, label="grad of grad, jit")


# --- kinds of torch code -------------------------------------------------------------------------


class OldCube(torch.autograd.Function):
    """The old style: forward takes ctx."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


class OnceCube(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


class NumpyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return torch.from_numpy(gradient.detach().numpy() * 3 * x.detach().numpy() ** 2)


class NumpyBoth(torch.autograd.Function):
    """As wrappers of other libraries do it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(np.power(x.detach().numpy(), 3))

    backward = NumpyBackward.backward


class NewCube(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2


class NewCubeVmap(NewCube):
    generate_vmap_rule = True


class NewCubeOwnVmap(NewCube):
    @staticmethod
    def vmap(info, in_dims, x):
        return NewCubeOwnVmap.apply(x), in_dims[0]


class NewCubeJvp(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * 3 * x**2

    @staticmethod
    def jvp(ctx, tangent):
        (x,) = ctx.saved_tensors
        return tangent * 3 * x**2


def scripted_function():
    def smooth(x, w):
        y = torch.tanh(x @ w)
        for _ in range(2):
            y = y * torch.sigmoid(y)
        return y

    return torch.jit.script(smooth)


def traced_function():
    return torch.jit.trace(
        lambda x, w: torch.tanh(x @ w).exp(), (torch.ones(2, 3), torch.ones(3, 2))
    )


def small_mlp():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def pair_energy(p):
    distance = (p[:, None] - p[None]).pow(2).sum(-1)
    return torch.exp(-distance).sum() + 0.1 * (distance**2).sum()


def energy_and_forces(positions):
    positions = positions.clone().requires_grad_()
    energy = pair_energy(positions)
    (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
    return energy, -gradient


def energy_and_forces_in_place(positions):
    """As most packages write it: the input itself is asked for."""
    positions.requires_grad_()
    energy = pair_energy(positions)
    (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
    return energy, -gradient


def positive(a):
    return a @ a.mT + 2 * torch.eye(a.shape[-1], dtype=a.dtype)


def spectrum(x):
    s = torch.fft.rfft(x)
    return s.real**2 + s.imag**2 * s.abs(), torch.fft.ifft2(torch.fft.fft2(x) * 1j).imag ** 3


def lstm():
    torch.manual_seed(0)
    net = torch.nn.LSTM(2, 2, batch_first=True)
    return lambda x: net(x)[0]


def gru():
    torch.manual_seed(0)
    net = torch.nn.GRU(2, 2)
    return lambda x: net(x)[0]


def attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def multihead():
    torch.manual_seed(0)
    net = torch.nn.MultiheadAttention(4, 2, batch_first=True)
    return lambda x: net(x, x, x)[0]


def encoder(train):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(
        4, 2, 8, dropout=0.0, batch_first=True, activation="gelu"
    )
    return layer.train(train)


def in_place(x):
    y = x * 2
    y[:, 0] = x[:, 1] * x[:, 2]
    y[1:].mul_(x[:2])
    z = y.clone().sin_()
    return z.add_(x)


def eval_norm():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(2)
    norm(torch.randn(8, 2, 3, 3))
    return norm.eval()


def compiled(backend):
    torch._dynamo.reset()
    return torch.compile(lambda x, w: torch.tanh(x @ w).exp(), backend=backend)


def compiled_module(backend):
    torch._dynamo.reset()
    return torch.compile(small_mlp(), backend=backend)


def checkpointed(x, w):
    return checkpoint(lambda x: torch.tanh(x @ w).sin(), x, use_reentrant=False)


def checkpointed_again(x, w):
    return checkpoint(lambda x, w: torch.tanh(x @ w).sin(), x, w, use_reentrant=True)


def branches(x):
    return (x**3).sum() if x.sum() > 0 else (x.sin() * 2).sum()


@dataclass
class Case:
    """A kind of code, and what the best engines for it are.

    Attributes:
        make: Makes the function; called once a test, since some keep state.
        shapes: Of the arguments.
        pullback: How gradients ought to be taken.
        engine: How tangents ought to be; None: it cannot be, which must be said.
        second: Whether torch has second derivatives; else asking for them must be an error.
    """

    make: Callable[[], Callable]
    shapes: list[tuple[int, ...]]
    pullback: str = "tape"
    engine: str | None = "func"
    second: bool = True


CASES = {
    # torch.func takes no old-style functions; autograd does.
    "old_style": Case(lambda: lambda x: OldCube.apply(x).sin(), [(4,)], engine="autograd"),
    "once_differentiable": Case(
        lambda: lambda x: OnceCube.apply(x).sin(), [(4,)], engine=None, second=False
    ),
    # A backward through numpy has no graph.
    "numpy_backward": Case(
        lambda: lambda x: NumpyBackward.apply(x).sin(), [(4,)], engine=None, second=False
    ),
    "numpy_both": Case(
        lambda: lambda x: NumpyBoth.apply(x).sin(), [(4,)], engine=None, second=False
    ),
    # Without a jvp of its own, only autograd twice gives tangents.
    "new_style": Case(lambda: lambda x: NewCube.apply(x).sin(), [(4,)], engine="func"),
    "new_style_vmap": Case(lambda: lambda x: NewCubeVmap.apply(x).sin(), [(4,)], engine="func"),
    "new_style_own_vmap": Case(
        lambda: lambda x: NewCubeOwnVmap.apply(x).sin(), [(4,)], engine="func"
    ),
    "new_style_jvp": Case(lambda: lambda x: NewCubeJvp.apply(x).sin(), [(4,)]),
    "script_function": Case(scripted_function, [(2, 3), (3, 2)], engine="autograd"),
    "script_module": Case(lambda: torch.jit.script(small_mlp()), [(2, 3)], engine="autograd"),
    "trace_function": Case(traced_function, [(2, 3), (3, 2)], engine="autograd"),
    "trace_module": Case(
        lambda: torch.jit.trace(small_mlp(), torch.ones(2, 3)), [(2, 3)], engine="autograd"
    ),
    # What differentiates by autograd inside cannot be differentiated by torch.func outside.
    "potential": Case(lambda: energy_and_forces, [(4, 3)], engine="autograd"),
    "potential_in_place": Case(lambda: energy_and_forces_in_place, [(4, 3)], engine="autograd"),
    "potential_energy": Case(
        lambda: lambda p: energy_and_forces(p)[0], [(3, 3)], engine="autograd"
    ),
    "cholesky": Case(lambda: lambda a: torch.linalg.cholesky(positive(a)), [(3, 3)]),
    "svdvals": Case(lambda: lambda a: torch.linalg.svd(a)[1], [(3, 4)]),
    "svdvals_reduced": Case(lambda: torch.linalg.svdvals, [(4, 3)]),
    "eigh": Case(lambda: lambda a: torch.linalg.eigh(positive(a))[0], [(3, 3)]),
    "eigh_vectors": Case(
        lambda: lambda a: torch.linalg.eigh(positive(a)).eigenvectors ** 2, [(3, 3)]
    ),
    "solve": Case(lambda: lambda a, b: torch.linalg.solve(positive(a), b), [(3, 3), (3, 2)]),
    "fft": Case(lambda: spectrum, [(3, 4)]),
    "sort": Case(lambda: lambda x: x.sort(1)[0] * x.sort(0, descending=True)[0], [(3, 4)]),
    "topk": Case(lambda: lambda x: x.topk(2, 1)[0].exp(), [(3, 4)]),
    "gather": Case(lambda: lambda x: x.gather(1, x.argsort(1)[:, :2]).sin(), [(3, 4)]),
    "scatter": Case(
        lambda: (
            lambda x, y: (
                x.scatter(0, torch.tensor([[1, 0, 2, 1]]), y).exp()
                + torch.zeros(3, 4).scatter_add(0, torch.tensor([[1, 0, 2, 1]]), y * y)
            )
        ),
        [(3, 4), (1, 4)],
    ),
    # Torch's fused kernel on the CPU has no forward mode of its own.
    "lstm": Case(lstm, [(1, 2, 2)], engine="func"),
    "gru": Case(gru, [(2, 1, 2)]),
    "conv2d": Case(
        lambda: lambda x, w, b: F.conv2d(x, w, b, padding=1).tanh(),
        [(1, 1, 3, 3), (2, 1, 3, 3), (2,)],
    ),
    "eval_batch_norm": Case(lambda: (lambda n: lambda x: n(x).sin())(eval_norm()), [(2, 2, 2, 2)]),
    "functional_batch_norm": Case(
        lambda: lambda x: F.batch_norm(x, None, None, training=True).sin(), [(4, 2)]
    ),
    "layer_norm": Case(
        lambda: (lambda w: lambda x: F.layer_norm(x, (3,), w, w))(torch.arange(1.0, 4.0)), [(2, 3)]
    ),
    "attention": Case(lambda: attention, [(1, 2, 2, 2)] * 3),
    "causal_attention": Case(lambda: causal, [(1, 2, 2, 2)] * 3),
    "multihead": Case(multihead, [(1, 2, 4)]),
    "encoder_eval": Case(lambda: encoder(False), [(1, 2, 4)]),
    "encoder_train": Case(lambda: encoder(True), [(1, 2, 4)]),
    "compile_eager": Case(lambda: compiled("eager"), [(2, 3), (3, 2)]),
    "compile_aot_eager": Case(lambda: compiled("aot_eager"), [(2, 3), (3, 2)]),
    "compile_module_eager": Case(lambda: compiled_module("eager"), [(2, 3)]),
    "compile_module_aot_eager": Case(lambda: compiled_module("aot_eager"), [(2, 3)]),
    "checkpoint": Case(
        lambda: checkpointed,
        [(2, 3), (3, 2)],
        # Before torch 2.13 its own custom function in there has no jvp.
        engine="func" if TorchVersion(torch.__version__) >= "2.13" else "autograd",
    ),
    "in_place": Case(lambda: in_place, [(3, 3)]),
    "closed_over_module": Case(lambda: (lambda net: lambda x: net(x).exp())(small_mlp()), [(2, 3)]),
    # What looks at values has no graph.
    "branches": Case(lambda: branches, [(3,)], engine="autograd"),
}


def twin_of(name, function):
    """What torch is asked: code as written and attention unfused, to have second derivatives."""
    if name in ("attention", "causal_attention", "multihead", "encoder_eval", "encoder_train"):
        return unfused(function)
    if name.startswith("compile"):
        return getattr(function, "_orig_mod", None) or function._torchdynamo_orig_callable
    return function


def unfused(function):
    def run(*tensors):
        with sdpa_kernel(SDPBackend.MATH):
            return function(*tensors)

    return run


def prepared(name):
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        function = case.make()
    arrays = [random(*shape, seed=i) for i, shape in enumerate(case.shapes)]
    return case, jax_callable(function, name=name), twin_of(name, function), arrays


# Planning these runs them on real arguments, which is said once.
LOOKS_AT_VALUES = pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")


@LOOKS_AT_VALUES
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name):
    case, wrapped, twin, arrays = prepared(name)
    check_first_order(wrapped, twin, arrays)
    assert pullback_of(wrapped, arrays) == case.pullback, wrapped.explain(*arrays)


@LOOKS_AT_VALUES
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.engine])
def test_forward_mode(name):
    case, wrapped, twin, arrays = prepared(name)
    check_forward_mode(wrapped, twin, arrays, torch_can=case.second)
    assert engine_of(wrapped, arrays) == case.engine, wrapped.explain(*arrays)


# Second derivatives take long to plan: these cases have those of another one,
SAME_AS_OTHERS = {
    "encoder_train", "multihead", "svdvals_reduced", "causal_attention", "functional_batch_norm",
    "eigh", "trace_module", "compile_module_eager", "compile_module_aot_eager",
    "new_style_own_vmap",
}  # fmt: skip
# and these are looked at from both sides.
THOROUGH = {
    "old_style", "new_style_vmap", "script_function", "potential", "cholesky", "fft", "in_place",
    "closed_over_module", "branches", "checkpoint", "lstm", "compile_aot_eager",
}  # fmt: skip
TWICE = [name for name, case in CASES.items() if case.second and name not in SAME_AS_OTHERS]


@LOOKS_AT_VALUES
@pytest.mark.table(2)
@pytest.mark.parametrize("name", TWICE)
def test_second_order(name):
    _, wrapped, twin, arrays = prepared(name)
    check_second_order(wrapped, twin, arrays, thorough=name in THOROUGH)


FORWARDS_TWICE = {
    "constant": lambda x: x * torch.arange(1.0, 4.0),
    "made": lambda x: x * torch.ones_like(x),
    "sine": lambda x: x.sin() * x,
    "product": lambda x: (x @ torch.ones(3, 2)).exp(),
    "softmax": lambda x: F.softmax(x, -1) * x,
}


@pytest.mark.parametrize("name", FORWARDS_TWICE)
def test_forwards_over_forwards(name):
    function = FORWARDS_TWICE[name]
    wrapped = jax_callable(function)
    x, v = random(2, 3), random(2, 3, seed=1)

    def curvature(jvp, f, x, v):
        return jvp(lambda x: jvp(f, (x,), (v,))[1], (x,), (v,))[1]

    t, moved = tensors_of([x, v], grad=False)
    wanted = curvature(torch.func.jvp, function, t, moved)
    for words, call in both_ways(lambda x: curvature(jax.jvp, wrapped, x, v)):
        assert_close(call(x), wanted, label=words)


# --- derivatives that there are not --------------------------------------------------------------


@LOOKS_AT_VALUES
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", ["once_differentiable", "numpy_backward", "numpy_both"])
@pytest.mark.parametrize("order", ["jvp", "grad_of_grad", "jvp_of_grad"])
def test_a_backward_that_has_no_derivative_is_named(name, order, jit):
    """Never zeros: a Hessian of zeros would look like an answer."""
    _, wrapped, _, (x,) = prepared(name)
    loss = jax_loss(wrapped)
    wrapped(x)  # a jitted first call would have to guess what the function returns
    call = {
        "jvp": lambda x: jax.jvp(wrapped, (x,), (x,))[1],
        "grad_of_grad": jax.grad(lambda x: jax.grad(loss)(x).sum()),
        "jvp_of_grad": lambda x: jax.jvp(jax.grad(loss), (x,), (x,))[1],
    }[order]
    words = "differentiable|recorded no way"
    # What a run finds out comes through XLA, which has no exceptions but its own.
    errors = (DifferentiationError, jax.errors.JaxRuntimeError) if jit else DifferentiationError
    with pytest.raises(errors, match=words) as caught:
        jax.block_until_ready((jax.jit(call) if jit else call)(x))
    assert name in str(caught.value)


def forces_as_constants(positions):
    positions = positions.clone().requires_grad_()
    return -torch.autograd.grad(pair_energy(positions), positions)[0]


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_forces_without_a_graph_have_no_derivative(jit):
    wrapped = jax_callable(forces_as_constants)
    p = random(3, 3)
    for call in (
        jax.grad(lambda p: wrapped(p).sum()),
        lambda p: jax.jvp(wrapped, (p,), (p,)),
        jax.hessian(lambda p: wrapped(p).sum()),
    ):
        with pytest.raises(DifferentiationError, match="create_graph=True"):
            (jax.jit(call) if jit else call)(p)


def test_a_loss_on_energy_and_forces():
    """How interatomic potentials are trained: parameters and positions, forces in the loss."""

    def model(p, w):
        p = p.clone().requires_grad_()
        energy = (torch.tanh(p @ w) ** 2).sum() + w.mean() * pair_energy(p)
        return energy, -torch.autograd.grad(energy, p, create_graph=True)[0]

    wrapped = jax_callable(model)
    p, w, target = random(3, 3), random(3, 2, seed=1), random(3, 3, seed=2)

    def energy(p, w):
        return (jnp.tanh(p @ w) ** 2).sum() + w.mean() * (
            jnp.exp(-((p[:, None] - p[None]) ** 2).sum(-1)).sum()
            + 0.1 * (((p[:, None] - p[None]) ** 2).sum(-1) ** 2).sum()
        )

    def loss(p, w):
        found, forces = wrapped(p, w)
        return found**2 * 0.01 + ((forces - target) ** 2).sum()

    def twin(p, w):
        return energy(p, w) ** 2 * 0.01 + ((-jax.grad(energy)(p, w) - target) ** 2).sum()

    for words, call in both_ways(jax.value_and_grad(loss, argnums=(0, 1))):
        value, gradients = call(p, w)
        wanted, twins = jax.value_and_grad(twin, argnums=(0, 1))(p, w)
        assert_close(value, wanted, label=words)
        for mine, theirs in zip(gradients, twins, strict=True):
            assert_close(mine, theirs, label=words)
    assert pullback_of(wrapped, (p, w)) == "tape"


def test_forces_that_are_the_gradient_of_the_energy():
    """JAX's own gradient of the energy is minus the forces that torch returned."""
    wrapped = jax_callable(energy_and_forces)
    p = random(4, 3)
    forces = -jax.grad(lambda p: wrapped(p)[0])(p)
    assert_close(forces, wrapped(p)[1], label="forces")
    hessian = jax.jit(jax.hessian(lambda p: wrapped(p)[0]))(p)
    assert_close(-jax.jacrev(lambda p: wrapped(p)[1])(p), hessian, label="hessian")


# --- batch norm, checkpoints, inductor -----------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("mode", ["reverse", "forward", "second"])
def test_batch_norm_in_training_updates_its_statistics_once(mode, jit):
    torch.manual_seed(0)
    norm, twin = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)
    wrapped = jax_callable(norm)
    x, v = random(6, 3), random(6, 3, seed=1)
    loss = jax_loss(wrapped)
    call = {
        "reverse": jax.value_and_grad(loss),
        "forward": lambda x: jax.jvp(loss, (x,), (v,)),
        "second": lambda x: jax.jvp(jax.value_and_grad(loss), (x,), (v,)),
    }[mode]
    found = jax.block_until_ready((jax.jit(call) if jit else call)(x))
    assert int(norm.num_batches_tracked) == 1
    (t,) = tensors_of([x])
    value = torch_loss(twin)(t)
    assert_close(norm.running_mean, twin.running_mean)
    assert_close(norm.running_var, twin.running_var)
    (gradient,) = torch.autograd.grad(value, t, create_graph=True)
    moved = torch.from_numpy(np.array(v))
    slope = (gradient * moved).sum()
    if mode == "reverse":
        assert_close(found[0], value, label="value")
        assert_close(found[1], gradient, label="grad")
        assert pullback_of(wrapped, [x]) == "tape"
    elif mode == "forward":
        assert_close(found[0], value, label="value")
        assert_close(found[1], slope, label="jvp")
        assert engine_of(wrapped, [x]) == "autograd"
    else:
        assert_close(found[0][0], value, label="value")
        assert_close(found[0][1], gradient, label="grad")
        assert_close(found[1][0], slope, label="jvp")
        assert_close(found[1][1], torch.autograd.grad(slope, t)[0], label="hvp")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_reentrant_checkpoints():
    """Torch itself has no autograd.grad through them; they are run as the other form."""
    wrapped = jax_callable(checkpointed_again)
    x, w = random(2, 3), random(3, 2, seed=1)

    def twin(x, w):
        return jnp.sin(jnp.tanh(x @ w))

    assert_close(wrapped(x, w), twin(x, w), label="value")
    found = jax.grad(lambda *a: wrapped(*a).sum(), argnums=(0, 1))(x, w)
    assert_close(found, jax.grad(lambda *a: twin(*a).sum(), argnums=(0, 1))(x, w), label="grad")


# --- branches on values --------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("sign", [1, -1])
def test_both_branches_have_their_own_gradient(sign, jit):
    """Planned on one branch, differentiated on either."""
    example = jnp.ones(3)
    wrapped = jax_callable(branches, example=(example,))
    x = sign * jnp.abs(random(3))
    wanted = 3 * x**2 if sign > 0 else 2 * jnp.cos(x)
    curvature = 6 * x if sign > 0 else -2 * jnp.sin(x)
    run = jax.jit if jit else lambda f: f
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=BridgeWarning)
        assert_close(run(jax.grad(wrapped))(x), wanted, label="grad")
    assert_close(
        run(lambda x: jax.jvp(wrapped, (x,), (jnp.ones(3),))[1])(x), wanted.sum(), label="jvp"
    )
    assert_close(
        run(jax.grad(lambda x: (jax.grad(wrapped)(x) ** 2).sum()))(x),
        2 * wanted * curvature,
        label="grad of grad",
    )
    assert_close(run(jax.hessian(wrapped))(x), jnp.diag(curvature), label="hessian")
    assert pullback_of(wrapped, [x]) == "tape"
    assert engine_of(wrapped, [x]) == "autograd"


# --- contracts -----------------------------------------------------------------------------------

CONTRACT = """\
schema: jaxtorch/1
name: poly
version: 1.0.0
inputs: {x: "float32[n]"}
outputs: {y: "float32[n]"}
"""


def contract(tmp_path, *lines):
    path = tmp_path / "poly.yaml"
    path.write_text(CONTRACT + "".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_recompute_by_contract_takes_torch_func(tmp_path, jit):
    wrapped = jax_callable(lambda x: x.sin() ** 3, spec=contract(tmp_path, "residuals: recompute"))
    x = random(4)

    def twin(x):
        return (jnp.sin(x) ** 3).sum()

    run = jax.jit if jit else lambda f: f
    assert_close(run(jax.grad(lambda x: wrapped(x).sum()))(x), jax.grad(twin)(x), label="grad")
    assert_close(
        run(jax.hessian(lambda x: wrapped(x).sum()))(x), jax.hessian(twin)(x), label="hessian"
    )
    assert pullback_of(wrapped, [x]) == "func"
    op = wrapped._planned((x,), {}).op
    assert op.family.linearize(op, (0,)).residuals == ()
    assert "the contract says `residuals: recompute`" in wrapped.explain(x)


def test_recompute_takes_autograd_where_torch_func_cannot(tmp_path):
    spec = contract(tmp_path, "residuals: recompute")
    wrapped = jax_callable(lambda x: OldCube.apply(x), spec=spec)
    x = random(4)
    assert_close(jax.grad(lambda x: wrapped(x).sum())(x), 3 * x**2, label="grad")
    assert pullback_of(wrapped, [x]) == "autograd"


def derivatives_of(f):
    """By order: first, second both ways, third."""

    def loss(x):
        return f(x).sum()

    second = jax.grad(lambda x: jax.grad(loss)(x).sum())
    return {
        "grad": jax.grad(loss),
        "jvp": lambda x: jax.jvp(loss, (x,), (x,))[1],
        "grad_of_grad": second,
        "jvp_of_grad": lambda x: jax.jvp(jax.grad(loss), (x,), (x,))[1],
        "grad_of_jvp": jax.grad(lambda x: jax.jvp(loss, (x,), (x,))[1]),
        "jvp_of_jvp": lambda x: jax.jvp(lambda x: jax.jvp(loss, (x,), (x,))[1], (x,), (x,))[1],
        "hessian": jax.hessian(loss),
        "third_rev": jax.grad(lambda x: second(x).sum()),
        "third_fwd": lambda x: jax.jvp(second, (x,), (x,))[1],
        "third_jacobian": jax.jacfwd(jax.hessian(loss)),
    }


ORDERS = {
    "grad": 1, "jvp": 1, "grad_of_grad": 2, "jvp_of_grad": 2, "grad_of_jvp": 2, "jvp_of_jvp": 2,
    "hessian": 2, "third_rev": 3, "third_fwd": 3, "third_jacobian": 3,
}  # fmt: skip


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("residuals", ["auto", "recompute"])
def test_the_contract_limits_the_order(tmp_path, depth, residuals):
    spec = contract(tmp_path, f"residuals: {residuals}", f"vjp_depth: {depth}")
    wrapped = jax_callable(lambda x: x**4, spec=spec)
    x = random(3)
    twins = derivatives_of(lambda x: x**4)
    for name, call in derivatives_of(wrapped).items():
        for run in (lambda f: f, jax.jit):
            if ORDERS[name] <= depth:
                assert_close(run(call)(x), twins[name](x), label=name)
                continue
            with pytest.raises(DifferentiationError) as caught:
                run(call)(x)
            words = str(caught.value)
            assert f"vjp_depth: {depth}" in words, name
            assert "poly@1.0.0" in words, name
            assert "poly.yaml:7" in words, name


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_without_a_limit_the_fourth_order_is_there(jit):
    def derivative(f, order, modes):
        for mode in modes[:order]:
            f = mode(f)
        return f

    wrapped = jax_callable(lambda x: x**5 + x.sin())

    def twin(x):
        return x**5 + jnp.sin(x)

    x = jnp.float32(0.7)
    for modes in (
        [jax.grad] * 4,
        [jax.jacfwd, jax.grad, jax.grad, jax.jacfwd],
    ):
        call = derivative(wrapped, 4, modes)
        assert_close(
            (jax.jit(call) if jit else call)(x), derivative(twin, 4, modes)(x), label=str(modes)
        )


# --- torch's context -----------------------------------------------------------------------------


def autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("residuals", ["auto", "recompute"])
def test_autocast_holds_for_derivatives(tmp_path, residuals, jit):
    """Traced under autocast; run outside of it, perhaps on a thread of XLA."""
    path = tmp_path / "mm.yaml"
    path.write_text(
        "schema: jaxtorch/1\nname: mm\nversion: 1.0.0\n"
        "inputs: {x: 'float32[n, k]', w: 'float32[k, m]'}\noutputs: {y: 'float32[n, m]'}\n"
        f"residuals: {residuals}\n"
    )

    def function(x, w):
        return torch.tanh(x @ w).float()

    wrapped = jax_callable(function, spec=path)
    x, w = random(4, 33), random(33, 3, seed=1)
    v = random(4, 33, seed=2)
    grad = jax.grad(jax_loss(wrapped), argnums=(0, 1))
    push = lambda x, w: jax.jvp(lambda x: wrapped(x, w), (x,), (v,))[1]  # noqa: E731
    second = lambda x, w: jax.jvp(lambda x: grad(x, w)[0], (x,), (v,))[1]  # noqa: E731
    calls = [jax.jit(call) if jit else call for call in (grad, push, second)]
    with autocast():
        mine = [call(x, w) for call in calls]
        tensors = tensors_of([x, w])
        gradients = torch.autograd.grad(torch_loss(function)(*tensors), tensors, create_graph=True)
        moved = torch.from_numpy(np.array(v))
        pushed = torch.autograd.functional.jvp(
            lambda t: function(t, tensors[1]), tensors[0], moved
        )[1]
        bent = torch.autograd.grad((gradients[0] * moved).sum(), tensors[0])[0]
    exact = torch.autograd.grad(torch_loss(function)(*tensors), tensors)
    # Rounded to bfloat16 at the same places, so closer to torch than bfloat16 is exact.
    for one, theirs, full in zip(mine[0], gradients, exact, strict=True):
        assert_close(one, theirs, factor=0.5, computed_in="bfloat16", label="grad")
        assert np.abs(one - full.numpy()).max() > 1e-4
    assert_close(mine[1], pushed, computed_in="bfloat16", label="jvp")
    assert_close(mine[2], bent, computed_in="bfloat16", label="hvp")
    if jit:
        # Traced already: the caller's context of now does not matter.
        for one, again in zip(mine[0], calls[0](x, w), strict=True):
            assert_equal(one, again)
    else:
        for one, full in zip(calls[0](x, w), exact, strict=True):
            assert_close(one, full, label="grad without autocast")


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_callers_no_grad_does_not_stop_jax(jit):
    """JAX asked for the derivative; torch's grad mode is not JAX's."""
    function = small_mlp()
    wrapped = jax_callable(function)
    x, v = random(2, 3), random(2, 3, seed=1)
    run = jax.jit if jit else lambda f: f
    (t,) = tensors_of([x])
    (gradient,) = torch.autograd.grad(torch_loss(function)(t), t)
    loss = jax_loss(wrapped)
    with torch.no_grad():
        found = run(jax.grad(loss))(x)
        pushed = run(lambda x: jax.jvp(loss, (x,), (v,))[1])(x)
    assert_close(found, gradient, label="grad")
    assert_close(pushed, (gradient * torch.from_numpy(np.array(v))).sum(), label="jvp")


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_the_default_dtype_of_planning_holds_for_derivatives(jit):
    def function(x):
        return (x * torch.full((3,), 1 / 3)).sin()

    wrapped = jax_callable(function)
    with jax.enable_x64(True):
        x = random(3).astype("float64")
        grad = jax.grad(lambda x: wrapped(x).sum())
        grad = jax.jit(grad) if jit else grad
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            found = grad(x)
            pushed = jax.jvp(wrapped, (x,), (jnp.ones(3),))[1]
        finally:
            torch.set_default_dtype(before)
        wanted = jnp.cos(x / 3) / 3
        assert_close(found, wanted)
        assert_close(pushed, wanted)
        single = float(np.float32(1 / 3))
        assert_close(jax.grad(lambda x: wrapped(x).sum())(x), jnp.cos(x * single) * single)


def test_derivatives_taken_on_other_threads_have_the_planned_context():
    """A jitted gradient traced under autocast gives the same from any thread."""
    import threading

    def function(x):
        return (x @ x).float()

    wrapped = jax_callable(function)
    x = random(33, 33)
    grad = jax.jit(jax.grad(jax_loss(wrapped)))
    with autocast():
        here = grad(x)
    found = []
    thread = threading.Thread(target=lambda: found.append(grad(x)))
    thread.start()
    thread.join()
    assert_equal(found[0], here)
    (t,) = tensors_of([x])
    with autocast():
        (wanted,) = torch.autograd.grad(torch_loss(function)(t), t)
    assert_close(here, wanted, computed_in="bfloat16", label="grad")
