"""Calls that XLA has recorded give what the calls give."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch

from comparing import assert_close
from jaxtorch_bridge import from_module, jax_callable

SIZE = 1 << 16


def recorded(function):
    return jax_callable(function, backend="graph", cuda_graph=True)


def chain(x, y):
    # Memory of torch's own in between, which a replay must find untouched.
    inner = torch.sin(x) * y
    return torch.cos(inner) + inner.roll(1)


def chain_by_jax(x, y):
    inner = jnp.sin(x) * y
    return jnp.cos(inner) + jnp.roll(inner, 1)


def arguments(count):
    keys = jax.random.split(jax.random.key(0), count)
    return [jax.random.normal(key, (SIZE,)) for key in keys]


def test_it_says_that_it_is_recorded():
    x, y = arguments(2)
    assert "recorded into XLA's command buffers" in recorded(chain).explain(x, y)


def test_new_values_in_the_same_and_in_other_memory():
    run = jax.jit(recorded(chain))
    values = arguments(12)
    for x, y in zip(values, reversed(values), strict=True):
        assert_close(run(x, y), chain_by_jax(x, y), rtol=1e-5, atol=1e-5)


def test_python_code_runs_when_it_is_recorded_alone(monkeypatch):
    seen = []
    asks = torch.cuda.is_current_stream_capturing

    def ask():
        # The handler asks in each call that runs Python code.
        seen.append(asks())
        return seen[-1]

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", ask)
    wrapped = recorded(chain)
    run = jax.jit(lambda x, y: wrapped(wrapped(x, y), y))
    x, y = arguments(2)
    for _ in range(5):
        run(x, y).block_until_ready()
    before = len(seen)
    for _ in range(20):
        run(x, y).block_until_ready()
    assert any(seen), "XLA has recorded no call"
    assert len(seen) < before + 20, "each run called the handler"


def test_torch_allocating_in_between_does_not_touch_what_was_recorded():
    run = jax.jit(recorded(chain))
    x, y = arguments(2)
    wanted = chain_by_jax(x, y)
    for _ in range(10):
        assert_close(run(x, y), wanted, rtol=1e-5, atol=1e-5)
        held = [torch.full((SIZE,), 7.0, device="cuda") for _ in range(8)]
        torch.cuda.synchronize()
        del held


def test_the_same_call_several_times_in_one_program():
    wrapped = recorded(chain)

    @jax.jit
    def run(values):
        # Nothing orders these among themselves.
        return [wrapped(x, x + 1) for x in values]

    values = arguments(6)
    for _ in range(5):
        for x, one in zip(values, run(values), strict=True):
            assert_close(one, chain_by_jax(x, x + 1), rtol=1e-5, atol=1e-5)


def test_what_waits_for_the_device_is_called_each_time():
    wrapped = recorded(lambda x: x[torch.argsort(x)] * torch.linalg.det(torch.outer(x, x)))
    x = jnp.arange(8.0)
    assert "cuda graph   " in wrapped.explain(x)
    found = jax.jit(wrapped)
    for _ in range(5):
        assert_close(found(x), jnp.zeros(8), atol=1e-3)


def test_a_module_and_its_gradient():
    module = torch.nn.Linear(8, 8).cuda()
    net = from_module(module, backend="graph", cuda_graph=True)
    plain = from_module(module)
    x = jax.random.normal(jax.random.key(1), (4, 8))

    def loss(apply, params):
        return (apply(params, x) ** 2).sum()

    run = jax.jit(jax.value_and_grad(lambda params: loss(net.apply, params)))
    wanted = jax.value_and_grad(lambda params: loss(plain.apply, params))(plain.params)
    for _ in range(5):
        found = run(net.params)
        for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
            assert_close(one, other, rtol=1e-4, atol=1e-4)
