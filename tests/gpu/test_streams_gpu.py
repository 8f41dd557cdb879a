"""How calls are ordered with torch's own stream."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch

from jaxtorch_bridge import jax_callable, t2j
from jaxtorch_bridge.torchside.handler import cuda_streams

CYCLES = 200_000_000  # some 100 ms


def test_the_handler_finds_the_c_functions():
    jax.jit(jax_callable(lambda x: x + 1))(jnp.ones(3)).block_until_ready()
    assert cuda_streams.stream_functions() is not None
    own = torch.cuda.current_stream()
    said = cuda_streams.current_stream_by(cuda_streams.stream_functions(), own.device_index)
    assert said == own.cuda_stream


def test_a_call_sees_what_is_queued_on_torchs_stream():
    weight = torch.zeros(1 << 20, device="cuda")
    f = jax.jit(jax_callable(lambda x: x + weight))
    f(jnp.zeros(1 << 20)).block_until_ready()
    torch.cuda._sleep(CYCLES)
    weight.fill_(3.0)
    assert float(f(jnp.zeros(1 << 20)).min()) == 3.0


def test_torchs_stream_sees_what_a_call_has_queued():
    kept = torch.zeros(1 << 20, device="cuda")

    def function(x):
        torch.cuda._sleep(CYCLES)
        kept.copy_(x)
        return x + 0

    f = jax.jit(jax_callable(function))
    f(jnp.zeros(1 << 20)).block_until_ready()
    f(jnp.full(1 << 20, 5.0))
    assert float(kept.clone().min()) == 5.0


def test_calls_that_are_not_ordered_are_right_among_those_that_are():
    weight = torch.ones(1 << 20, device="cuda")
    alone = jax_callable(lambda x: torch.sin(x) * 2)
    assert "not ordered with torch's own stream" in alone.explain(jnp.ones(1 << 20))
    ordered = jax_callable(lambda x: x * weight)
    assert "not ordered" not in ordered.explain(jnp.ones(1 << 20))

    @jax.jit
    def chain(x):
        for _ in range(5):
            x = ordered(alone(x))
        return x

    x = jnp.linspace(0, 1, 1 << 20)
    wanted = x
    for _ in range(5):
        wanted = jnp.sin(wanted) * 2
    for _ in range(20):
        tensor = torch.full((1 << 20,), 1.0, device="cuda")
        found = chain(x) + t2j(tensor) - 1.0
        assert float(jnp.abs(found - wanted).max()) < 1e-5
