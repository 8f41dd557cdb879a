"""Torch's own control flow in a function: against torch, and against the same in JAX."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch._higher_order_ops import associative_scan, scan, while_loop
from torch._higher_order_ops import map as torch_map
from torch._ops import HigherOrderOperator
from torch.nn.attention.flex_attention import flex_attention
from torch.utils.checkpoint import checkpoint

from comparing import assert_close, assert_equal
from jaxtorch_bridge import MutationError, from_module, jax_callable

pytestmark = pytest.mark.derivatives

W = np.array([3.0, 4.0], np.float32)
TW = torch.from_numpy(W)
WEIGHTS = jnp.array([1.0, 2.0])
# Of either sign, so that each branch is taken, by one program and one after the other.
INPUTS = [np.array(x, np.float32) for x in ([1.0, 2.0], [-1.0, -2.0], [2.0, 0.5], [-0.5, 0.25])]


def either(x):
    return torch.cond(x.sum() > 0, lambda x: x * x * 2, lambda x: -x.sin(), (x,))


def closed_over(x):
    return torch.cond(x.sum() > 0, lambda: x * x * TW, lambda: -x.sin(), ())


def nested(x):
    def positive():
        return torch.cond(x[0] > 1.5, lambda: x * x * TW, lambda: x * 3, ())

    return torch.cond(x.sum() > 0, positive, lambda: -x.sin(), ())


def in_dicts(x):
    found = torch.cond(
        x.sum() > 0, lambda x: {"a": x * x, "b": x * 1}, lambda x: {"a": x * 1, "b": -x.sin()}, (x,)
    )
    return found["a"] * found["b"]


def loop(x):
    # Ends whatever the numbers are.
    def goes_on(i, y):
        return torch.logical_and(y.abs().sum() < 20, i < 5)

    return while_loop(goes_on, lambda i, y: (i + 1, y * TW), (torch.tensor(0), x))[1]


def mapped(x):
    return torch_map(lambda row, y: row * y.sum() * TW.sum(), x, x + 0)


def scanned(x):
    return scan(lambda c, row: (c + row * row, c * row), x[0] * 2, x)[1]


def products(x):
    return associative_scan(lambda a, b: a * b, x, dim=0, combine_mode="generic")


def checkpointed(x):
    return checkpoint(
        lambda y: torch.cond(y.sum() > 0, lambda y: y * y * x, lambda y: -y.sin(), (y,)),
        x,
        use_reentrant=False,
    )


twice_sine = torch.compile(lambda x: (x * 2).sin(), backend="eager")


def compiled_between(x):
    return twice_sine(either(x * x - 1)) + 1


def jax_either(x):
    return jax.lax.cond(x.sum() > 0, lambda: x * x * 2, lambda: -jnp.sin(x))


def jax_closed_over(x):
    return jax.lax.cond(x.sum() > 0, lambda: x * x * W, lambda: -jnp.sin(x))


def jax_nested(x):
    def positive():
        return jax.lax.cond(x[0] > 1.5, lambda: x * x * W, lambda: x * 3)

    return jax.lax.cond(x.sum() > 0, positive, lambda: -jnp.sin(x))


def jax_loop(x):
    def step(_, y):
        return jnp.where(jnp.abs(y).sum() < 20, y * W, y)

    return jax.lax.fori_loop(0, 5, step, x)


def jax_scanned(x):
    return jax.lax.scan(lambda c, row: (c + row * row, c * row), x[0] * 2, x)[1]


def jax_checkpointed(x):
    return jax.lax.cond(x.sum() > 0, lambda: x * x * x, lambda: -jnp.sin(x))


CASES = {
    "cond": (either, jax_either),
    "closed_over": (closed_over, jax_closed_over),
    "nested": (nested, jax_nested),
    "dicts": (in_dicts, lambda x: jnp.where(x.sum() > 0, x * x * x, -x * jnp.sin(x))),
    "while_loop": (loop, jax_loop),
    "map": (mapped, lambda x: x * x.sum() * W.sum()),
    "scan": (scanned, jax_scanned),
    "associative_scan": (products, jnp.cumprod),
    "checkpoint": (checkpointed, jax_checkpointed),
    "compiled": (compiled_between, lambda x: jnp.sin(jax_either(x * x - 1) * 2) + 1),
}
ALL = pytest.mark.parametrize("case", CASES)
ONE_BY_ONE = pytest.mark.filterwarnings("ignore:.*calls torch once for each element")
BOTH = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])


@BOTH
@ALL
def test_values(case, jit):
    function, twin = CASES[case]
    call = jit(jax_callable(function))
    # Twice: the first calls are watched, later ones are not.
    for x in INPUTS * 2:
        assert_close(call(x), function(torch.from_numpy(x)))
        assert_close(call(x), twin(x))


@BOTH
@ALL
def test_gradients(case, jit):
    function, twin = CASES[case]
    call = jax_callable(function)
    grad = jit(jax.grad(lambda x: (call(x) * WEIGHTS).sum()))
    for x in INPUTS * 2:
        assert_close(grad(x), jax.jacrev(lambda x: (twin(x) * WEIGHTS).sum())(x))


@ONE_BY_ONE
@ALL
def test_forward_mode_and_second_derivatives(case):
    function, twin = CASES[case]
    call = jax_callable(function)
    tangent = np.array([1.0, 3.0], np.float32)
    for x in INPUTS:
        assert_close(jax.jvp(call, (x,), (tangent,)), jax.jvp(twin, (x,), (tangent,)))
        found = jax.hessian(lambda x: (call(x) * WEIGHTS).sum())(x)
        assert_close(found, jax.hessian(lambda x: (twin(x) * WEIGHTS).sum())(x), scale=1.0)


@ONE_BY_ONE
@BOTH
@ALL
def test_batches(case, jit):
    function, twin = CASES[case]
    call, batch = jax_callable(function), np.stack(INPUTS)
    assert_close(jit(jax.vmap(call))(batch), jnp.stack([twin(x) for x in INPUTS]))
    grad = jax.grad(lambda x: (call(x) * WEIGHTS).sum())
    expected = [jax.grad(lambda x: (twin(x) * WEIGHTS).sum())(x) for x in INPUTS]
    assert_close(jit(jax.vmap(grad))(batch), jnp.stack(expected))


@ALL
def test_evaluated_abstractly(case):
    function, _ = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan = jax_callable(function).plan(INPUTS[0])
    assert plan.inference.traced


def test_each_forward_keeps_its_own_branch():
    pulls = [jax.vjp(jax_callable(closed_over), x)[1] for x in INPUTS]
    expected = [jax.vjp(jax_closed_over, x)[1](WEIGHTS) for x in INPUTS]
    # The last first: no record may be that of another call.
    for pull, right in reversed(list(zip(pulls, expected, strict=True))):
        assert_close(pull(WEIGHTS), right)


class Gated(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up = torch.nn.Linear(2, 2)
        self.down = torch.nn.Linear(2, 2)

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda: self.up(x), lambda: self.down(x).tanh(), ())


@BOTH
def test_modules(jit):
    module = Gated()
    wrapped = from_module(module, names="flat")
    call = jit(jax.grad(lambda p, x: (wrapped.apply(p, x) * WEIGHTS).sum()))
    for x in INPUTS * 2:
        layer = module.up if x.sum() > 0 else module.down
        module.zero_grad()
        out = layer(torch.from_numpy(x))
        out = out if x.sum() > 0 else out.tanh()
        (out * torch.tensor([1.0, 2.0])).sum().backward()
        found = call(wrapped.params, x)
        for name, parameter in module.named_parameters():
            wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert_close(found[name], wanted)


@BOTH
def test_the_operator_itself(jit):
    # As graphs of `torch.export` call it.
    def function(x):
        return torch.ops.higher_order.cond(
            x.sum() > 0, lambda x: (x * x * 2,), lambda x: (-x.sin(),), (x,)
        )[0]

    call = jax_callable(function)
    grad = jit(jax.grad(lambda x: (call(x) * WEIGHTS).sum()))
    for x in INPUTS * 2:
        assert_close(jit(call)(x), jax_either(x))
        assert_close(grad(x), jax.vjp(jax_either, x)[1](WEIGHTS)[0])


@BOTH
def test_flex_attention(jit):
    def attend(q, k, v, bias):
        return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + bias[i] * TW[j])

    def plain(q, k, v, bias):
        scores = q @ jnp.swapaxes(k, -1, -2) / 4 + bias[:, None] * W[None]
        return jax.nn.softmax(scores) @ v

    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 1, 2, 16)).astype(np.float32) for _ in range(3))
    call = jit(jax_callable(attend))
    for x in INPUTS:
        assert_close(call(q, k, v, x), plain(q, k, v, x))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
@BOTH
def test_checkpoints_run(reentrant, jit):
    call = jit(
        jax_callable(lambda x: checkpoint(lambda y: y.sin() * x, x, use_reentrant=reentrant))
    )
    for x in INPUTS:
        assert_close(call(x), np.sin(x) * x)


@pytest.mark.derivatives
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
@BOTH
def test_gradients_of_checkpoints(reentrant, jit):
    # The inner function reaches an input around the checkpoint as well.
    call = jax_callable(
        lambda x: checkpoint(lambda y: y.sin() * x, x, use_reentrant=reentrant),
        vmap_method="sequential",
    )
    grad = jit(jax.grad(lambda x: call(x).sum()))
    for x in INPUTS:
        assert_close(grad(x), np.cos(x) * x + np.sin(x))
    batch = np.stack(INPUTS)
    assert_close(jit(jax.vmap(grad))(batch), np.cos(batch) * batch + np.sin(batch))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("shape", [(2, 4), (1,), (), (2, 3, 2)])
@pytest.mark.parametrize("reentrant", [True, False])
@BOTH
def test_checkpoints_of_any_shape(reentrant, shape, jit):
    call = jax_callable(
        lambda x, y: checkpoint(lambda x, y: (x * y).sin(), x, y, use_reentrant=reentrant) + x,
        vmap_method="sequential",
    )
    x, y = np.full(shape, 0.5, np.float32), np.full(shape, 2.0, np.float32)
    found = jit(jax.grad(lambda *a: call(*a).sum(), argnums=(0, 1)))(x, y)
    assert_close(found, (np.cos(x * y) * y + 1, np.cos(x * y) * x))
    second = jit(jax.hessian(lambda x: call(x, y).sum()))(x)
    assert_close(second.sum(), (-np.sin(x * y) * y * y).sum())


def test_a_branch_that_writes_is_refused_whichever_is_taken():
    def writes(x):
        return torch.cond(x.sum() > 0, lambda: x + 1, lambda: x.mul_(2) + 1, ())

    for x in INPUTS[:2]:
        with pytest.raises(MutationError):
            jax_callable(writes)(x)


def test_a_branch_that_draws_takes_numbers_from_the_key():
    def noisy(x):
        return torch.cond(x.sum() > 0, lambda: x + torch.rand(2), lambda: x * 1, ())

    call = jax.jit(jax_callable(noisy, random="key"))
    one, other = jax.random.key(0), jax.random.key(1)
    assert_equal(call(INPUTS[0], rng=one), call(INPUTS[0], rng=one))
    with pytest.raises(AssertionError):
        assert_close(call(INPUTS[0], rng=one), call(INPUTS[0], rng=other))
    assert_equal(call(INPUTS[1], rng=one), INPUTS[1])


@pytest.mark.filterwarnings("ignore:.*found abstractly")
def test_values_read_before():
    def reads(x):
        scale = float(x.detach().abs().max())
        return closed_over(x) * scale

    call = jax_callable(reads)
    grad = jax.grad(lambda x: (call(x) * WEIGHTS).sum())
    for x in INPUTS * 2:
        scale = np.abs(x).max()
        assert_close(call(x), jax_closed_over(x) * scale)
        assert_close(grad(x), jax.vjp(jax_closed_over, x)[1](WEIGHTS * scale)[0])


def test_torchs_own_calls_are_left_as_they_were():
    def reads(x):
        return closed_over(x) * x.detach().abs().max().item()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call = jax_callable(reads)
        for x in INPUTS:
            call(x)
            jax.grad(lambda x: call(x).sum())(x)
    for x in INPUTS:
        tensor = torch.from_numpy(x).requires_grad_()
        (found,) = torch.autograd.grad(closed_over(tensor).sum(), tensor)
        assert_close(found, jax.vjp(jax_closed_over, x)[1](jnp.ones(2))[0])


class Hidden(HigherOrderOperator):
    """Takes no function, so that nobody sees what it does."""

    def __init__(self):
        super().__init__("jaxtorch_bridge_test_hidden")

    def __call__(self, x):
        return super().__call__(x)


hidden = Hidden()


@hidden.py_impl(torch._C.DispatchKey.CompositeExplicitAutograd)
def _write_past_torch(x):
    x.numpy()[0] = 7
    return x * 2


hidden.fallthrough(torch._C.DispatchKey.AutogradCPU)


@BOTH
def test_what_nobody_sees_counts_as_not_seen(jit):
    x = jnp.asarray(INPUTS[0])
    with pytest.raises(Exception, match="writes to"):
        jax.block_until_ready(jit(jax_callable(lambda x: hidden(x)))(x))
    assert_equal(x, INPUTS[0])
