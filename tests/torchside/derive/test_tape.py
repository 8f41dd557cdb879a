"""Torch's record of a forward, kept for its backward: what it must not get wrong."""

from __future__ import annotations

import gc
import itertools
import os
import threading
import warnings
import weakref
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.ad_checkpoint import checkpoint_name

from comparing import assert_close, assert_equal
from jaxtorch_bridge import BridgeWarning, jax_callable, settings, t2j
from jaxtorch_bridge.torchside.derive.tape.recorded_run import Tape
from jaxtorch_bridge.torchside.derive.tape.tape_table import TAPES

pytestmark = pytest.mark.derivatives

F = torch.nn.functional
X = jnp.asarray(np.linspace(-1.5, 2.0, 12, dtype=np.float32).reshape(4, 3))
W = jnp.asarray(np.linspace(0.5, -0.5, 6, dtype=np.float32).reshape(3, 2))


@pytest.fixture
def fresh():
    TAPES.clear()
    return TAPES


def torch_gradients(function, *arrays, by=None):
    """Of the sum of squares of all results, by all arrays."""
    by = range(len(arrays)) if by is None else by
    tensors = [torch.tensor(np.asarray(a)) for a in arrays]
    for index in by:
        tensors[index].requires_grad_()
    results = function(*tensors)
    results = results if isinstance(results, (tuple, list)) else [results]
    loss = sum((r.abs() ** 2).sum() for r in results if r.requires_grad)
    return torch.autograd.grad(loss, [tensors[i] for i in by], allow_unused=True)


def loss_of(wrapped):
    def loss(*arrays):
        leaves = jax.tree.leaves(wrapped(*arrays))
        moving = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
        return sum((abs(leaf) ** 2).sum() for leaf in moving)

    return loss


class Counted:
    """Counts the runs of a function, in a way that planning does not take back."""

    def __init__(self, function):
        self.runs = 0
        self.function = function

    def wrapped(self, **options):
        counter = itertools.count(1)

        def run(*tensors):
            if type(tensors[0]) is torch.Tensor:
                self.runs = next(counter)
            return self.function(*tensors)

        return jax_callable(run, **options)


def branches(x, w):
    # Nothing can be evaluated abstractly that looks at values.
    return torch.sin(x @ w) if float(x.detach().sum()) > -100 else x @ w


class Attribute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x
        return x.sin()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.x.cos()


class Part(torch.autograd.Function):
    """Keeps a view: nothing else holds the argument itself."""

    @staticmethod
    def forward(ctx, x):
        ctx.part = x[:, :2]
        return ctx.part.sin()

    @staticmethod
    def backward(ctx, g):
        return F.pad(g * ctx.part.cos(), (0, 1))


class Saving(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        result = x @ w
        ctx.save_for_backward(x, w, result)
        return result * result

    @staticmethod
    def backward(ctx, g):
        x, w, result = ctx.saved_tensors
        g = 2 * g * result
        return g @ w.T, x.T @ g


def own_hooks(x, w):
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        return (x @ w).sin().exp()


def checkpointed(x, w):
    return torch.utils.checkpoint.checkpoint(lambda z: (z @ w).sin().exp(), x, use_reentrant=False)


def conjugated_products(x, w):
    z = torch.complex(x, x.flip(0))
    return (z.conj() * z).real, z.imag.neg() * z.imag, torch.view_as_real(z).square()


FUNCTIONS = {
    "products": lambda x, w: torch.tanh(x @ w),
    "its result is saved": lambda x, w: (x @ w).exp(),
    "looks at values": branches,
    "attribute of the context": lambda x, w: Attribute.apply(x) @ w,
    "part in the context": lambda x, w: Part.apply(x) @ w[:2],
    "custom function": lambda x, w: Saving.apply(x, w),
    "its own hooks": own_hooks,
    "checkpoint": checkpointed,
    "torch.func inside": lambda x, w: torch.func.grad(lambda z: ((z @ w).sin() ** 2).sum())(x),
    "autograd inside": lambda x, w: (
        torch.autograd.grad(((x @ w).sin() ** 2).sum(), x, create_graph=True)[0]
        if x.requires_grad
        else torch.func.grad(lambda z: ((z @ w).sin() ** 2).sum())(x)
    ),
    "parts": lambda x, w: (x[1:] * x[:-1], x[:, ::2].T * 2, x.T.contiguous().exp() @ x),
    "expanded": lambda x, w: x[:, :, None].expand(4, 3, 5) * x[:, None, :1].exp(),
    "its inputs": lambda x, w: (x, x, w, x[1:], x.T),
    "in place on its own": lambda x, w: (x @ w).mul_(3).sin_().add_(x.sum()),
    "several results, one unused": lambda x, w: (x.sin(), (x @ w).argmax(1), x.detach(), w * 2),
    "bits pending": conjugated_products,
    "no grad inside": lambda x, w: x * torch.no_grad()(lambda z: z.sin())(x),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_torchs(name, jit):
    function = FUNCTIONS[name]
    wrapped = jax_callable(function)
    wrapped(X, W)  # one that looks at values is planned by this call
    call = jax.value_and_grad(loss_of(wrapped), (0, 1))
    call = jax.jit(call) if jit else call
    wanted = torch_gradients(function, X, W)
    for _ in range(3):  # the first run may find out that copies are needed
        _, found = call(X, W)
        for mine, theirs in zip(found, wanted, strict=True):
            assert_close(mine, np.zeros_like(mine) if theirs is None else theirs)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.needs_tapes
def test_one_forward_and_one_backward(name, fresh):
    counted = Counted(FUNCTIONS[name])
    wrapped = counted.wrapped()
    wrapped(X, W)
    call = jax.jit(jax.value_and_grad(loss_of(wrapped), (0, 1)))
    for _ in range(2):
        jax.block_until_ready(call(X, W))
    before = counted.runs
    jax.block_until_ready(call(X, W))
    assert counted.runs == before + 1
    assert len(fresh) == 0


@pytest.mark.parametrize("name", ["products", "looks at values", "attribute of the context"])
def test_buffers_that_xla_uses_again(name):
    """In `scan` the inputs of each step lie where those of the next will."""
    function = FUNCTIONS[name]

    def run(step):
        def loss(w):
            def body(carry, _):
                return carry + 0.1 * step(carry, w).sum() * carry, None

            return (jax.lax.scan(body, X, None, length=6)[0] ** 2).sum()

        return jax.jit(jax.grad(loss))(W)

    twin = {
        "products": lambda x, w: jnp.tanh(x @ w),
        "looks at values": lambda x, w: jnp.sin(x @ w),
        "attribute of the context": lambda x, w: jnp.sin(x) @ w,
    }[name]
    wrapped = jax_callable(function)
    wrapped(X, W)
    assert_close(run(wrapped), run(twin), factor=10)  # of six steps that go on from another


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_are_read_where_the_backward_has_them(name):
    """What they were in when the forward ran may hold anything by then."""
    function = FUNCTIONS[name]
    wrapped = jax_callable(function)
    wrapped(X, W)
    wanted = jax.vjp(wrapped, X, W)[1]
    for _ in range(3):  # the first run may be on copies
        memory = [torch.tensor(np.asarray(array)) for array in (X, W)]
        results, pull = jax.vjp(wrapped, *map(t2j, memory))
        cotangents = jax.tree.map(jnp.ones_like, results)
        pull = jax.tree.map(jnp.copy, pull)
        for tensor in memory:
            tensor.fill_(float("nan"))
        assert_close(pull(cotangents), wanted(cotangents))


POLICIES = {
    "none": (None, 2),
    "everything": (jax.checkpoint_policies.everything_saveable, 1),
    "all but these": (jax.checkpoint_policies.save_anything_except_these_names("other"), 1),
    "these": (jax.checkpoint_policies.save_only_these_names("result"), 2),
    "dots": (jax.checkpoint_policies.dots_saveable, 2),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_checkpoints_of_jax(policy, tape_bytes):
    """What `explain` says of each policy is so."""
    policy, runs = POLICIES[policy]
    counted = Counted(FUNCTIONS["products"])
    wrapped = counted.wrapped()
    wrapped(X, W)

    def call(f):
        def part(x, w):
            return checkpoint_name(f(jnp.sin(x), w), "result")

        return jax.jit(jax.value_and_grad(loss_of(jax.checkpoint(part, policy=policy)), (0, 1)))

    assert_close(call(wrapped)(X, W), call(lambda x, w: jnp.tanh(x @ w))(X, W))
    if tape_bytes == 0:
        return
    of_torch = call(wrapped)
    jax.block_until_ready(of_torch(X, W))
    before = counted.runs
    jax.block_until_ready(of_torch(X, W))
    assert counted.runs == before + runs
    assert "jax.checkpoint: kept by everything_saveable" in wrapped.explain(X, W)


def test_a_pullback_is_called_twice():
    wrapped = jax_callable(branches)
    results, pull = jax.vjp(wrapped, X, W)
    once = pull(results)
    other, _ = jax.vjp(wrapped, X + 1, W)  # another forward in between
    assert_equal(pull(results), once)
    assert_close(once, jax.vjp(lambda x, w: jnp.sin(x @ w), X, W)[1](results))
    assert other.shape == results.shape


def test_a_pullback_on_another_thread():
    wrapped = jax_callable(FUNCTIONS["products"])
    results, pull = jax.vjp(wrapped, X, W)
    found = []
    thread = threading.Thread(target=lambda: found.append(pull(results)))
    thread.start()
    thread.join()
    assert_close(found[0], pull(results))


@pytest.mark.needs_tapes
def test_a_tape_is_used_on_another_thread(fresh):
    _, pull = jax.vjp(jax_callable(lambda x: x.sin().exp()), X)
    assert len(fresh) == 1
    thread = threading.Thread(target=lambda: jax.block_until_ready(pull(X)))
    thread.start()
    thread.join()
    assert len(fresh) == 0


def test_a_pullback_out_of_a_jitted_function():
    wrapped = jax_callable(FUNCTIONS["products"])
    results, pull = jax.jit(lambda x, w: jax.vjp(wrapped, x, w))(X, W)
    again = jax.jit(lambda pull, ct: pull(ct))
    assert_equal(again(pull, results), again(pull, results))


def test_arrays_that_are_one_array():
    wrapped = jax_callable(lambda x, y: x * y.sin())
    found = jax.jit(lambda x: jax.grad(loss_of(wrapped), (0, 1))(x, x))(X)
    assert_close(found, torch_gradients(lambda x, y: x * y.sin(), X, X))


def test_complex_inputs_with_bits_pending():
    z = (X + 1j * X[::-1]).astype(jnp.complex64)

    def function(z):
        return z.conj() * z.real, z.mH @ z, torch.view_as_real(z)[..., 1] * z.imag.neg()

    def twin(z):
        return jnp.conj(z) * z.real, z.conj().T @ z, -z.imag * z.imag

    found = jax.grad(loss_of(jax_callable(function)))(z)
    assert_close(found, jax.grad(loss_of(twin))(z))


@pytest.mark.parametrize("random", [None, "key"])
def test_another_run_draws_the_same(random, fresh, monkeypatch):
    def noisy(x, w):
        return F.dropout(x @ w, 0.5, training=True)

    options = {"random": random} if random else {}
    call = {"rng": jax.random.key(3)} if random else {}

    def gradients():
        torch.manual_seed(1)
        wrapped = jax_callable(noisy, **options)
        return jax.jit(jax.grad(lambda x, w: loss_of(lambda *a: wrapped(*a, **call))(x, w)))(X, W)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BridgeWarning)  # of numbers that no key decides
        kept = gradients()
        monkeypatch.setattr(settings, "tape_bytes", 0)
        assert_equal(gradients(), kept)


@pytest.mark.parametrize("change", ["written", "replaced"])
def test_a_parameter_that_changes_in_between(change):
    module = torch.nn.Linear(3, 2)
    wrapped = jax_callable(lambda x: module(x).relu())
    _, pull = jax.vjp(wrapped, X)
    if change == "written":
        with torch.no_grad():
            module.weight.mul_(2)
    else:
        module.weight = torch.nn.Parameter(torch.ones(2, 3))
    with pytest.raises(Exception, match="changed after the forward pass"):
        pull(jnp.ones((4, 2)))


PULLS = {
    "vjp": lambda f: jax.vjp(f, X)[1],
    "linearize": lambda f: jax.linearize(f, X)[1],
    "transposed": lambda f: jax.linear_transpose(jax.linearize(f, X)[1], X),
    "batch": lambda f: jax.vmap(jax.vjp(f, X)[1]),
}


@pytest.mark.filterwarnings("ignore:.*calls torch once for each element")
@pytest.mark.parametrize("change", ["written", "replaced", "nothing"])
@pytest.mark.parametrize("pull", PULLS)
@pytest.mark.parametrize(
    "execution", [{"residuals": "recompute"}, {"backend": "graph"}, {"backend": "xla"}], ids=str
)
def test_a_weight_that_changes_before_the_function_runs_again(execution, pull, change):
    spec = {
        "schema": "jaxtorch/1",
        "name": "scaled",
        "version": "1.0.0",
        "inputs": {"x": "float32[4, 3]"},
        "outputs": {"y": "float32[4, 3]"},
        "residuals": execution.get("residuals", "auto"),
        "execution": {"backend": execution.get("backend", "auto")},
    }
    weight = torch.tensor([1.0, 2.0, 3.0])
    wrapped = jax_callable(lambda x: (x * weight).sin(), spec=spec)
    given = jnp.ones((2, 4, 3) if pull == "batch" else (4, 3))
    derivative = PULLS[pull](wrapped)
    if change == "nothing":
        want = jnp.cos(X * jnp.arange(1.0, 4)) * jnp.arange(1.0, 4)
        for _ in range(2):
            found = jax.tree.leaves(derivative(given))[0]
            assert_close(found, jnp.broadcast_to(want, given.shape))
        return
    if change == "written":
        weight.mul_(2)
    else:
        weight = torch.ones(3)
    with pytest.raises(Exception, match=r"closes over was changed|was replaced"):
        derivative(given)
    # The next one is of what is there now.
    assert_close(
        jax.tree.leaves(PULLS[pull](wrapped)(given))[0],
        jnp.broadcast_to(jnp.cos(X * t2j(weight)) * t2j(weight), given.shape),
    )


@pytest.mark.needs_tapes
@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_python_value_that_changes_in_between_does_not_matter_to_a_tape(jit):
    held = {"scale": 2.0}
    wrapped = jax_callable(lambda x: torch.sin(x * held["scale"]))
    x = jnp.linspace(-1, 1, 3)
    wrap = jax.jit if jit else lambda f: f
    _, pull = wrap(lambda x: jax.vjp(wrapped, x))(x)
    _, another = wrap(lambda x: jax.vjp(wrapped, x))(x)
    held["scale"] = 3.0
    wanted = 2 * jnp.cos(2 * x)
    assert_close(wrap(jax.vmap(pull))(jnp.eye(3))[0], jnp.diag(wanted))
    assert_close(wrap(another)(jnp.ones(3))[0], wanted)


@pytest.mark.needs_tapes
def test_a_switch_that_changes_in_between_does_not_matter_to_a_tape(fresh, monkeypatch):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5)).eval()
    wrapped = jax_callable(lambda x: module(x).sin())
    _, pull = jax.vjp(wrapped, X)
    wanted = pull(jnp.ones((4, 2)))
    _, pull = jax.vjp(wrapped, X)
    module.train()
    assert_equal(pull(jnp.ones((4, 2))), wanted)
    module.eval()
    monkeypatch.setattr(settings, "tape_bytes", 0)
    _, pull = jax.vjp(wrapped, X)
    module.train()
    with pytest.raises(Exception, match="changed after the forward pass"):
        pull(jnp.ones((4, 2)))


def test_a_switch_after_compiling_is_no_silent_other_mask(tape_bytes):
    module = torch.nn.Dropout(0.5).eval()
    wrapped = jax_callable(lambda x: module(x), name="switched")

    def both(x):
        return jax.value_and_grad(lambda x: (lambda y: (y.sum(), y))(wrapped(x)), has_aux=True)(x)

    call, ones = jax.jit(both), jnp.ones(64)
    assert_equal(call(ones)[1], ones)
    module.train()
    if tape_bytes is None:
        (_, result), gradient = call(ones)
        assert_equal(result, gradient)
    else:
        with pytest.raises(Exception, match="since the gradient was compiled"):
            jax.block_until_ready(call(ones))


def test_what_is_written_to_after_it_was_saved_is_an_error_as_in_torch():
    def spoilt(x, w):
        h = x @ w
        y = h.sin()
        if float(h.detach().sum()) > -100:
            h.mul_(2)
        return y

    wrapped = jax_callable(spoilt)
    wrapped(X, W)
    with pytest.raises(Exception, match="modified by an inplace operation"):
        jax.grad(loss_of(wrapped))(X, W)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_modes_of_the_caller(mode):
    wrapped = jax_callable(FUNCTIONS["products"])
    wanted = jax.grad(loss_of(wrapped), (0, 1))(X, W)
    with mode():
        found = jax.grad(loss_of(wrapped), (0, 1))(X, W)
    assert_close(found, torch_gradients(FUNCTIONS["products"], X, W))
    assert_equal(found, wanted)


def test_only_the_inputs_that_are_asked_for_require_grad(fresh):
    seen = []

    def look(x, w):
        if type(x) is torch.Tensor:
            seen.append((x.requires_grad, w.requires_grad))
        return x @ w

    jax.grad(loss_of(jax_callable(look)), 1)(X, W)
    assert seen[-1] == (False, True)


def test_hooks_of_the_functions_own_run_in_its_context():
    seen = deque()  # a list would be put back after another run

    def hooked(x, w):
        h = x @ w
        if h.requires_grad:
            h.register_hook(lambda g: seen.append(torch.is_autocast_enabled("cpu")))
        return h.sin()

    call = jax.jit(jax.grad(loss_of(jax_callable(hooked))))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        jax.block_until_ready(call(X, W))
    seen.clear()
    thread = threading.Thread(target=lambda: jax.block_until_ready(call(X, W)))
    thread.start()
    thread.join()
    assert list(seen) == [True]


@pytest.mark.needs_tapes
def test_a_result_that_nobody_saved_is_freed(fresh):
    results = []

    def watched(x):
        y = x.sin() + 1
        if type(y) is torch.Tensor:
            results.append(weakref.ref(y))
        return y

    _, pull = jax.vjp(jax_callable(watched), X)
    assert len(fresh) == 1
    assert results[-1]() is None
    pull(X)
    assert len(fresh) == 0


def test_branches_of_jax():
    wrapped = jax_callable(FUNCTIONS["products"])

    def loss(take, x, w):
        return jax.lax.cond(take, loss_of(wrapped), lambda x, w: (x**2).sum() + w.sum(), x, w)

    call = jax.jit(jax.grad(loss, (1, 2)))
    assert_close(call(True, X, W), torch_gradients(FUNCTIONS["products"], X, W))
    assert_close(call(False, X, W), (2 * X, jnp.ones_like(W)))


@pytest.mark.parametrize("backend", ["auto", "graph", "eager"])
@pytest.mark.parametrize("outputs", ["auto", "in_place"])
def test_results_that_are_saved_and_overwritten_before_the_backward(backend, outputs):
    """Autograd saves the results of `exp` and `sigmoid`; what XLA has them in serves others."""
    wrapped = jax_callable(
        lambda x: (x.exp(), x.sigmoid()),
        spec={
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "inputs": {"x": "float32[a, b]"},
            "outputs": {"y": "float32[a, b]", "z": "float32[a, b]"},
            "execution": {"outputs": outputs, "backend": backend},
        },
    )
    large = jnp.linspace(-2, 2, 1 << 19, dtype=jnp.float32).reshape(1 << 10, -1)  # 2 MiB
    overwritten = jax.jit(lambda y: y * jnp.nan, donate_argnums=0)

    def losses(f):
        def loss(x):
            y, z = f(x)
            return (jnp.sin(y) + z * z).sum()

        return loss

    wanted = jax.grad(losses(lambda x: (jnp.exp(x), jax.nn.sigmoid(x))))(large)
    (y, z), pull = jax.vjp(wrapped, large)
    cotangents = (jnp.cos(y), 2 * z)
    jax.block_until_ready((overwritten(y), overwritten(z)))
    assert y.is_deleted()
    assert_close(pull(cotangents)[0], wanted)
    assert_close(jax.jit(jax.grad(losses(wrapped)))(large), wanted)


# What carries a tape is a row of numbers among the leaves of a pullback.
def test_tokens_that_are_stacked_sliced_and_read_back():
    function = FUNCTIONS["its result is saved"]
    wrapped = jax_callable(function)
    results, pulls = jax.jit(lambda xs: jax.lax.map(lambda x: jax.vjp(wrapped, x, W), xs))(
        jnp.stack([X, 2 * X, X - 1])
    )
    wanted = [jax.vjp(lambda x, w: jnp.exp(x @ w), x, W)[1] for x in (X, 2 * X, X - 1)]
    # The last first, and by way of numpy.
    for index in (2, 0, 1):
        pull = jax.tree.map(lambda leaf, index=index: jnp.asarray(np.array(leaf[index])), pulls)
        assert_close(pull(results[index]), wanted[index](results[index]))


@pytest.mark.parametrize("function", ["products", "looks at values"])
def test_a_token_of_zeros_is_that_of_no_tape(function):
    """`cond` fills what a branch that was not taken keeps with zeros."""
    wrapped = jax_callable(FUNCTIONS[function])
    results, pull = jax.vjp(wrapped, X, W)
    integers = [leaf for leaf in jax.tree.leaves(pull) if leaf.dtype == jnp.int32]
    assert integers
    without = jax.tree.map(
        lambda leaf: jnp.zeros_like(leaf) if leaf.dtype == jnp.int32 else leaf, pull
    )
    assert_equal(without(results), pull(results))


def test_tokens_on_another_device(run_python):
    """Where they were made is not where they are used."""
    printed = run_python(
        """
import jax, jax.numpy as jnp
from jaxtorch_bridge import jax_callable
from comparing import assert_close

here, there = jax.devices()
wrapped = jax_callable(lambda x: (x.exp(), x.sin()))
x = jax.device_put(jnp.arange(6.0), here)
results, pull = jax.vjp(wrapped, x)
moved = jax.device_put((pull, results), there)
(found,) = moved[0](moved[1])
assert found.devices() == {there}
assert_close(found, jnp.exp(2 * x) + jnp.sin(x) * jnp.cos(x))
print("done")
""",
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    )
    assert printed.strip() == "done"


def test_torch_func_that_shows_when_it_runs_leaves_no_traces_of_two_runs(fresh):
    """Hooks are refused in the middle of a run, which begins again from where it began."""
    torch.manual_seed(0)
    norm, twin = torch.nn.BatchNorm1d(3), torch.nn.BatchNorm1d(3)

    def function(x, norm=norm):
        assert float(x.detach().sum()) > -100  # cannot be evaluated abstractly
        noisy = F.dropout(norm(x), 0.5, training=True)
        return torch.func.grad(lambda z: (z.sin() ** 2).sum())(noisy)

    spec = {
        "schema": "jaxtorch/1",
        "name": "noisy",
        "version": "1.0.0",
        "inputs": {"x": "float32[a, b]"},
        "outputs": {"y": "float32[a, b]"},
    }
    wrapped = jax_callable(lambda x: function(x), spec=spec)
    x = torch.tensor(np.asarray(X), requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BridgeWarning)
        torch.manual_seed(5)
        value, found = jax.value_and_grad(lambda x: (wrapped(x) ** 2).sum())(X)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    wanted = (function(x, twin) ** 2).sum()
    assert_equal(state, torch.get_rng_state())
    assert_close(value, wanted.detach())
    assert_close(found, torch.autograd.grad(wanted, x)[0])
    assert int(norm.num_batches_tracked) == int(twin.num_batches_tracked) == 1
    assert_close(norm.running_mean, twin.running_mean)


class TestBatches:
    @pytest.mark.needs_tapes
    def test_a_jacobian_is_one_run_and_one_batched_backward(self, fresh):
        counted = Counted(branches)
        wrapped = counted.wrapped()
        wrapped(X, W)
        call = jax.jit(jax.jacrev(wrapped, (0, 1)))
        wanted = jax.jacrev(lambda x, w: jnp.sin(x @ w), (0, 1))(X, W)
        call(X, W)
        before = counted.runs
        assert_close(call(X, W), wanted)
        assert counted.runs == before + 1

    def test_a_backward_that_cannot_be_batched_goes_one_by_one(self):
        class Numpy(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x.sin()

            @staticmethod
            def backward(ctx, g):
                return torch.from_numpy(g.numpy() * np.cos(ctx.saved_tensors[0].numpy()))

        wrapped = jax_callable(lambda x: Numpy.apply(x.reshape(-1)))
        assert_close(jax.jacrev(wrapped)(X[0]), jax.jacrev(jnp.sin)(X[0]))

    @pytest.mark.parametrize("method", ["torch_vmap", "sequential"])
    def test_batches_of_gradients(self, method):
        spec = {
            "schema": "jaxtorch/1",
            "name": "products",
            "version": "1.0.0",
            "inputs": {"x": "float32[a, b]", "w": "float32[b, c]"},
            "outputs": {"y": "float32[a, c]"},
            "vmap_method": method,
        }
        wrapped = jax_callable(FUNCTIONS["products"], spec=spec)
        batch = jnp.stack([X, X + 1, X - 1])

        def gradients(f):
            call = jax.vmap(jax.value_and_grad(loss_of(f), (0, 1)), (0, None))
            return jax.jit(call)(batch, W)

        assert_close(gradients(wrapped), gradients(lambda x, w: jnp.tanh(x @ w)))


class TestTable:
    def test_the_oldest_goes_first(self, fresh, monkeypatch):
        wrapped = jax_callable(lambda x: x.sin().exp())
        size = 4 * 2048
        monkeypatch.setattr(settings, "tape_bytes", 3 * size)
        arrays = [jnp.arange(2048.0) / 2048 + i for i in range(5)]
        pulls = [jax.vjp(wrapped, x)[1] for x in arrays]
        assert fresh.held()["cpu"] <= 3 * size
        before = len(fresh)
        assert 0 < before < 5
        for x, pull in zip(arrays, pulls, strict=True):
            (found,) = pull(jnp.ones(2048))
            assert_close(found, jax.grad(lambda x: jnp.exp(jnp.sin(x)).sum())(x))
        assert len(fresh) == 0

    @pytest.mark.needs_tapes
    def test_explain_says_what_is_held(self, fresh):
        wrapped = jax_callable(lambda x: x.sin().exp())
        x = jnp.arange(2048.0) / 2048
        assert "; now" not in wrapped.explain(x)
        pulls = [jax.vjp(wrapped, x)[1] for _ in range(3)]
        jax.vjp(jax_callable(lambda x: x.cos().exp()), x)
        assert len(fresh) == 4
        wanted = f"for the backward pass; now {3 * 4 * 2048} bytes of 3 runs"
        assert wanted in wrapped.explain(x)
        for pull in pulls:
            pull(x)
        assert "; now" not in wrapped.explain(x)

    def test_what_is_dropped_too_often_is_told_once(self, fresh, monkeypatch):
        monkeypatch.setattr(fresh, "_misses", 0)
        wrapped = jax_callable(lambda x: x.sin().exp())
        monkeypatch.setattr(settings, "tape_bytes", 4 * 2048)
        x = jnp.arange(2048.0)
        pulls = [jax.vjp(wrapped, x)[1] for _ in range(40)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for pull in pulls:
                pull(x)
        assert len([one for one in caught if "tape_bytes" in str(one.message)]) == 1

    def test_what_is_too_large_by_itself_is_told_once(self, fresh, monkeypatch):
        monkeypatch.setattr(fresh, "_too_large", set())
        monkeypatch.setattr(settings, "tape_bytes", 1000)
        wrapped = jax_callable(lambda x: x.sin().exp(), name="too_large")
        x = jnp.arange(2048.0)
        gradient = jax.jit(jax.grad(lambda x: wrapped(x).sum()))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(3):
                assert_close(gradient(x), jax.grad(lambda x: jnp.exp(jnp.sin(x)).sum())(x))
        told = [one for one in caught if "torch would keep 8192 bytes" in str(one.message)]
        assert len(told) == 1

    def test_pullbacks_that_are_never_called_leave_memory_flat(self, fresh, monkeypatch):
        monkeypatch.setattr(settings, "tape_bytes", 1 << 20)
        wrapped = jax_callable(lambda x: x.sin().exp().cos())
        forward = jax.jit(lambda x: jax.vjp(wrapped, x))
        x = jnp.arange(1024.0)
        for _ in range(3000):
            forward(x)
        assert fresh.held()["cpu"] <= 1 << 20
        before = len(gc.get_objects())
        for _ in range(1000):
            forward(x)
        assert len(gc.get_objects()) < before + 1000

    @pytest.mark.needs_tapes
    def test_what_nobody_can_count_is_bounded_too(self, fresh):
        wrapped = jax_callable(
            lambda x: torch.func.grad(lambda z: (z.sin() ** 2).sum())(x), name="uncounted"
        )
        for _ in range(100):
            jax.vjp(wrapped, X)
        assert 1 < len(fresh) <= 64

    def test_a_fork_while_another_thread_holds_the_table(self, fresh):
        held, done = threading.Event(), threading.Event()

        def hold():
            with fresh._lock:
                held.set()
                done.wait(300)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(300)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of forks
            child = os.fork()
        if child == 0:
            os._exit(len(fresh.held()))
        done.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    @pytest.mark.needs_tapes
    def test_a_child_after_a_fork_has_none(self, fresh):
        _, pull = jax.vjp(jax_callable(lambda x: x.sin()), X)
        assert len(fresh) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of forks
            child = os.fork()
        if child == 0:
            os._exit(len(fresh))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        pull(X)

    @pytest.mark.parametrize("value", [-1, 1.5, True, "1GiB"])
    def test_a_limit_that_is_no_number_of_bytes_is_refused(self, value):
        with pytest.raises(ValueError, match=r"settings\.tape_bytes: expected a number"):
            settings.tape_bytes = value


def of_cdist(x):
    return torch.cdist(x.reshape(2, 2), torch.arange(8.0).reshape(4, 2) / 5)


def of_hook_that_looks(x):
    y = x.sin()
    if y.requires_grad:
        y.register_hook(lambda g: g * (2.0 if float(g.sum()) > 0 else 3.0))
    return y


def of_hook_that_gives_a_constant(x):
    y = x.sin()
    if y.requires_grad:
        y.register_hook(lambda g: torch.full((4,), 3.0))
    return y * 2


def of_segments(x):
    return torch.segment_reduce(x, "sum", lengths=torch.tensor([1, 3]))


def of_hook_on_data(x):
    y = x.sin()
    if y.requires_grad:
        # Torch's older rules end the process here.
        y.register_hook(lambda g: g.data * 2)
    return y


def of_gated_distances(x):
    """Whose gradient is 0 wherever all gates are shut, by right rules and by wrong ones."""
    return torch.relu(of_cdist(x) - 1) + x.sum()


class TestRulesForBatches:
    """Torch has two sets of them, and of neither all are right, or there."""

    @pytest.mark.parametrize(
        ("function", "newer"),
        [
            (lambda x: torch.tanh(x.flip(0) * x), True),
            (lambda x: torch.fft.rfft(x).abs(), True),
            (of_segments, True),
            # Its newer rule is wrong.
            (of_cdist, False),
            (of_hook_that_looks, False),
            (of_hook_that_gives_a_constant, False),
            (of_gated_distances, False),
            (of_hook_on_data, False),
        ],
    )
    def test_each_row_is_what_one_cotangent_gives(self, function, newer, monkeypatch):
        ways = []
        pull = Tape.pull

        def noted(self, *args, batched="", **how):
            ways.append(batched)
            return pull(self, *args, batched=batched, **how)

        monkeypatch.setattr(Tape, "pull", noted)
        x = torch.tensor([0.5, 1.5, -0.7, 2.0], requires_grad=True)
        y = function(x)
        rows = [
            torch.autograd.grad(y, x, row.reshape(y.shape), retain_graph=True)[0]
            for row in torch.eye(y.numel())
        ]
        wanted = jnp.asarray(torch.stack(rows).reshape(*y.shape, 4).numpy())
        jacobian = jax.jit(jax.jacrev(jax_callable(function)))
        for _ in range(3):
            ways.clear()
            assert_close(jacobian(jnp.asarray(x.detach().numpy())), wanted)
        small = x.detach() / 100
        assert jacobian(jnp.asarray(small.numpy())).shape == wanted.shape
        assert_close(jacobian(jnp.asarray(x.detach().numpy())), wanted)
        if ways:  # none where tapes are gone
            assert ("newer rules" in ways) is newer

    def test_what_an_earlier_call_had_no_gradient_of(self):
        jacobian = jax.jit(jax.jacrev(jax_callable(of_gated_distances)))
        x = jnp.array([0.5, 1.5, -0.7, 2.0])
        jacobian(x / 100)
        t = torch.from_numpy(np.array(x))
        wanted = torch.autograd.functional.jacobian(of_gated_distances, t)
        for _ in range(3):
            assert_close(jacobian(x), wanted)

    @pytest.mark.parametrize("jit", [False, True])
    def test_batches_of_jacobians(self, jit):
        def function(a, b):
            return torch.cdist(a, b)

        a, b = (jnp.asarray(np.random.default_rng(i).normal(size=(3, 2, 2))) for i in (0, 1))
        call = jax.vmap(jax.jacrev(jax_callable(function), (0, 1)))
        found = (jax.jit(call) if jit else call)(a, b)
        for number in range(3):
            given = tuple(torch.tensor(np.asarray(one[number])) for one in (a, b))
            wanted = torch.autograd.functional.jacobian(function, given)
            for one, other in zip(found, wanted, strict=True):
                assert_close(one[number], other)

    def test_no_cotangents(self):
        _, pull = jax.vjp(jax_callable(of_cdist), jnp.array([0.5, 1.5, -0.7, 2.0]))
        assert jax.vmap(pull)(jnp.zeros((0, 2, 4)))[0].shape == (0, 4)

    def test_rows_that_are_alike_say_nothing_of_rules(self):
        _, pull = jax.vjp(jax_callable(of_cdist), jnp.array([0.5, 1.5, -0.7, 2.0]))
        batched = jax.vmap(pull)
        for cotangents in (jnp.ones((3, 2, 4)), jnp.arange(24.0).reshape(3, 2, 4)):
            wanted = jnp.stack([pull(one)[0] for one in cotangents])
            for _ in range(2):
                assert_close(batched(cotangents)[0], wanted)
