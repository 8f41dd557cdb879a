"""Tapes of runs without hooks: copies of small inputs cost less than hooks on what is saved."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import MutationError, jax_callable, settings
from jaxtorch_bridge.torchside.derive.engines import kept_tape
from jaxtorch_bridge.torchside.derive.tape.recorded_run import record
from jaxtorch_bridge.torchside.derive.tape.saved_tensors import copies_are_cheaper
from jaxtorch_bridge.torchside.derive.tape.tape_table import TAPES

from .test_tape import FUNCTIONS, W, X, loss_of, torch_gradients

pytestmark = [pytest.mark.derivatives, pytest.mark.needs_tapes]


@pytest.fixture
def memories(monkeypatch):
    """What the tapes of each run held of the inputs."""
    found = []

    def recording(*args, memory, **options):
        found.append(memory)
        return record(*args, memory=memory, **options)

    monkeypatch.setattr(kept_tape, "record", recording)
    return found


def many_small_ones(x):
    for _ in range(40):
        x = torch.sin(x) * 1.01
    return x


def looks_at_values(x):
    return many_small_ones(x) if float(x.detach().sum()) > -1e9 else x


@pytest.mark.parametrize("function", [many_small_ones, looks_at_values])
def test_hooks_are_left_out_where_they_cost_more(function, memories):
    x = jnp.linspace(-1, 1, 50)
    wrapped = jax_callable(function)
    wrapped(x)
    call = jax.jit(jax.grad(loss_of(wrapped)))
    (wanted,) = torch_gradients(function, x)
    for _ in range(9):
        assert_close(call(x), wanted)
    # The first, second, fourth and eighth are watched, and measure what is kept.
    assert [memory == "unhooked" for memory in memories] == [
        number not in (1, 2, 4, 8) for number in range(1, 10)
    ]


def test_large_inputs_are_never_copied_for_it(memories):
    x = jnp.linspace(-1, 1, 50)
    large = jnp.ones(400_000)
    wrapped = jax_callable(lambda x, large: many_small_ones(x) * large[:50])
    call = jax.jit(jax.grad(loss_of(wrapped)))
    for _ in range(4):
        call(x, large)
    assert set(memories) == {"hooked"}


def test_it_is_worth_it_where_much_is_saved_of_few_and_small_inputs():
    small, large = torch.ones(10), torch.ones(10_000_000)
    assert copies_are_cheaper(100, 100_000, [small])
    assert not copies_are_cheaper(100, 100_000, [small] * 400)  # as many calls
    assert not copies_are_cheaper(1, 100, [small])  # more memory
    assert not copies_are_cheaper(100, 1 << 40, [large])  # more time


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_are_torchs(name, monkeypatch, memories):
    monkeypatch.setattr(kept_tape, "copies_are_cheaper", lambda *_: True)
    function = FUNCTIONS[name]
    wrapped = jax_callable(function)
    wrapped(X, W)
    call = jax.jit(jax.value_and_grad(loss_of(wrapped), (0, 1)))
    wanted = torch_gradients(function, X, W)
    for _ in range(7):
        _, found = call(X, W)
        for mine, theirs in zip(found, wanted, strict=True):
            assert_close(mine, np.zeros_like(mine) if theirs is None else theirs)
    assert memories[-1] == "unhooked"


def test_what_is_held_is_counted_as_a_run_with_hooks_saw_it(monkeypatch):
    monkeypatch.setattr(kept_tape, "copies_are_cheaper", lambda *_: True)
    TAPES.clear()
    x = jnp.linspace(-1, 1, 5000)
    wrapped = jax_callable(many_small_ones)
    held = []
    for _ in range(3):
        _, pull = jax.vjp(wrapped, x)
        held.append(TAPES.held()["cpu"])
        pull(x)
    first, second, third = held
    # The third holds a copy of its input besides.
    assert first == second == third - x.nbytes


def test_an_input_that_is_written_to_is_an_error_in_these_runs_too(monkeypatch, memories):
    monkeypatch.setattr(kept_tape, "copies_are_cheaper", lambda *_: True)
    calls = []

    def function(x, y):
        calls.append(float(x.detach()[0]))
        if len(calls) > 6:
            y.add_(1)
        return many_small_ones(x) * y

    x, y = jnp.linspace(-1, 1, 50), jnp.ones(50)
    wrapped = jax_callable(function)
    wrapped(x, y)

    def gradients():
        for _ in range(20):
            jax.grad(lambda x: wrapped(x, y).sum())(x)

    with pytest.raises(MutationError, match="writes"):
        gradients()
    assert memories[-1] == "unhooked"
    assert_equal(y, np.ones(50, np.float32))


def test_all_runs_can_be_watched(monkeypatch, memories):
    monkeypatch.setattr(settings, "watch_every_call", True)
    wrapped = jax_callable(many_small_ones)
    call = jax.jit(jax.grad(loss_of(wrapped)))
    for _ in range(5):
        call(jnp.linspace(-1, 1, 50))
    assert set(memories) == {"hooked"}


class LeafInside(torch.nn.Module):
    """Forces, whose own leaf lies in an input's memory."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)
        )

    def forward(self, positions):
        positions = positions.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.net(positions).square().sum()
        (gradient,) = torch.autograd.grad(energy, positions, create_graph=True)
        return gradient


def test_where_there_are_copies_anyway_hooks_only_measure(memories):
    module = LeafInside()
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(parameters, positions):
        if float(positions.sum()) < -1e9:
            raise ValueError
        return torch.func.functional_call(module, parameters, positions).square().sum()

    arrays = {name: jnp.asarray(p.numpy()) for name, p in parameters.items()}
    positions = jnp.asarray(np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3))
    wrapped = jax_callable(loss)
    wrapped(arrays, positions)
    call = jax.jit(jax.grad(wrapped))
    leaves = list(module.parameters())
    value = loss(dict(module.named_parameters()), torch.tensor(np.asarray(positions)))
    wanted = torch.autograd.grad(value, leaves, allow_unused=True)
    for _ in range(7):
        found = call(arrays, positions)
        for name, theirs in zip(parameters, wanted, strict=True):
            mine = found[name]
            assert_close(mine, np.zeros_like(mine) if theirs is None else theirs)
    assert memories[-1] == "unhooked"
