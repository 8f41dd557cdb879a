"""Purity and memory: nothing is written to, nothing dangles, the next call works."""

from __future__ import annotations

import contextlib
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import EscapeError, MutationError, jax_callable

pytestmark = pytest.mark.filterwarnings("ignore::jaxtorch_bridge.BridgeWarning")


@pytest.fixture
def x():
    return jnp.arange(6.0).reshape(2, 3)


def unless_fake(tensor):
    return not isinstance(tensor, torch._subclasses.FakeTensor)


def in_place(x):
    return x.add_(1)


def through_a_view(x):
    x[0].zero_()
    return x.sum()


def through_data(x):
    x.data.mul_(2)
    return x + 1


def through_numpy(x):
    x.numpy()[0] = 7
    return x + 1


def with_out(x):
    torch.exp(x, out=x)
    return x


def after_a_look(x):
    if x.sum() > 0:
        x.neg_()
    return x


@pytest.mark.parametrize(
    "function", [in_place, through_a_view, through_data, through_numpy, with_out, after_a_look]
)
def test_mutation_is_an_error_and_the_array_keeps_its_value(function, x):
    before = np.array(x)
    wrapped = jax_callable(function)
    with pytest.raises(MutationError, match=rf"{function.__name__}, input `x`: .*clone\(\)"):
        wrapped(x)
    assert_equal(x, before)
    with pytest.raises((MutationError, jax.errors.JaxRuntimeError), match="input `x`"):
        jax.jit(lambda x: wrapped(x) * 1)(x)
    assert_equal(x, before)
    assert_equal(jax_callable(lambda x: x + 1)(x), before + 1)


def test_mutation_that_only_the_contract_vouched_for(x):
    spec = {
        "schema": "jaxtorch/1",
        "name": "sneaky",
        "version": "1.0.0",
        "inputs": {"x": "float32[n, m]"},
        "outputs": {"y": "float32[n, m]"},
    }

    def sneaky(x):
        x.numpy()[:] = 0
        return x + 1

    before = np.array(x)
    with pytest.raises(
        (jax.errors.JaxRuntimeError, ValueError), match=r"sneaky@1\.0\.0, input `x`"
    ):
        jax.jit(jax_callable(sneaky, spec=spec))(x)
    assert_equal(x, before)


def test_mutation_in_a_later_run_is_seen_by_the_version_counter(x):
    runs = []

    @jax_callable
    def third_time(x):
        if unless_fake(x):
            runs.append(1)
            if len(runs) == 3:
                x.add_(0)
        return x + 1

    third_time(x), third_time(x)
    with pytest.raises(MutationError, match="input `x`"):
        third_time(x)
    assert_equal(third_time(x), x + 1)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "keep",
    [lambda x: x, lambda x: x[1:], lambda x: x.T, lambda x: x.detach(), lambda x: [{"deep": x}]],
    ids=["itself", "slice", "transposed", "detached", "nested"],
)
def test_escape_is_an_error_and_the_tensor_gets_memory_of_its_own(keep, jit, x):
    kept = []

    def function(x):
        if unless_fake(x):
            kept.append(keep(x))
        return x * 2

    wrapped = jax_callable(function)
    expected = keep(torch.from_numpy(np.array(x)))
    if jit:
        with pytest.raises(
            (jax.errors.JaxRuntimeError, ValueError), match="input `x`: expected torch to be done"
        ):
            jax.jit(wrapped)(x)
    else:
        with pytest.raises(EscapeError, match=r"Keep `x.clone\(\)` instead"):
            wrapped(x)
    start = x.unsafe_buffer_pointer()
    tensor = kept[0][0]["deep"] if isinstance(kept[0], list) else kept[0]
    wanted = expected[0]["deep"] if isinstance(expected, list) else expected
    assert not start <= tensor.data_ptr() < start + x.nbytes
    assert_close(tensor, wanted)
    kept.clear()
    with pytest.raises((EscapeError, jax.errors.JaxRuntimeError)):
        (jax.jit(wrapped) if jit else wrapped)(x)


def test_escape_of_a_tensor_that_cannot_be_moved(x, monkeypatch):
    monkeypatch.setattr(
        "jaxtorch_bridge.torchside.handler.failure_messages.give_own_memory", lambda storage: False
    )
    kept = []

    @jax_callable
    def function(x):
        if unless_fake(x):
            kept.append(x)
        return x * 2

    with pytest.raises(EscapeError, match="could not be given a copy of its own: it must not be"):
        function(x)


def test_escape_into_an_autograd_graph_is_found(x):
    """Autograd keeps the input in C++, where no search from Python can find it."""
    weight = torch.nn.Parameter(torch.ones(2, 3))
    kept = []

    @jax_callable
    def function(x):
        y = x * weight
        if unless_fake(x):
            kept.append(y)
        return y.detach()

    with pytest.raises(EscapeError, match="input `x`"):
        function(x)
    want = np.array(x)
    del x
    gc.collect()
    jnp.ones((2, 3)).block_until_ready()
    kept[0].sum().backward()
    assert_equal(weight.grad, want)


def test_a_reference_cycle_is_no_escape(x):
    @jax_callable
    def function(x):
        cycle = [x]
        cycle.append(cycle)
        return x + 1

    assert_equal(function(x), x + 1)


def test_an_exception_that_holds_tensors_in_its_frames_is_no_escape(x):
    @jax_callable
    def function(x):
        local = x[0]
        if unless_fake(x):
            raise ValueError(f"rank {local.ndim}")
        return x

    for _ in range(3):
        with pytest.raises(Exception, match="rank 1"):
            function(x)


def test_zero_copy_by_address(x):
    """Torch reads XLA's own buffer, eager and under jit."""
    seen = []

    @jax_callable
    def address(x):
        seen.append(x.data_ptr() if unless_fake(x) else None)
        return x.sum()

    address(x)
    jax.jit(address)(x)
    assert [pointer for pointer in seen if pointer] == [x.unsafe_buffer_pointer()] * 2


def test_abstract_evaluation_leaves_closed_over_state_alone(x):
    norm = torch.nn.BatchNorm1d(3)
    twin = torch.nn.BatchNorm1d(3)
    function = jax_callable(norm)
    function.plan(x)
    assert int(norm.num_batches_tracked) == 0
    assert_close(function(x), twin(torch.from_numpy(np.array(x))).detach())
    assert int(norm.num_batches_tracked) == 1
    assert_close(norm.running_mean, twin.running_mean)


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_abstract_evaluation_draws_no_random_numbers(x):
    function = jax_callable(lambda x: torch.nn.functional.dropout(x, 0.5))
    torch.manual_seed(3)
    function.plan(x)
    after = torch.rand(2)
    torch.manual_seed(3)
    assert_close(after, torch.rand(2))


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_a_failed_call_within_keeps_nothing_of_the_call_around_it(jit):
    """What was raised within holds the frames that called it, and these their tensors."""

    def fails(x):
        if not isinstance(x, torch._subclasses.FakeTensor):
            raise KeyError("inside")
        return x

    def outer(x):
        if not isinstance(x, torch._subclasses.FakeTensor):
            with contextlib.suppress(Exception):
                inner(jnp.ones(2))
        return x * 2

    inner = jax_callable(fails)
    if jit:
        inner = jax.jit(inner)
    assert_equal(jax_callable(outer)(jnp.arange(3.0)), [0, 2, 4])
    with pytest.raises(Exception, match="inside"):
        inner(jnp.ones(2))
