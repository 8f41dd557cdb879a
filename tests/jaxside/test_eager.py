"""Eager calls where JAX hands out results before it knows whether they failed, as on GPUs."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import EscapeError, TorchExecutionError, jax_callable
from jaxtorch_bridge.jaxside import eager_calls as eager


class Watch:
    """What the thread is made to have seen."""

    def __init__(self, failure=None, succeeded=True) -> None:
        self.failure = failure
        self.succeeded = succeeded


class Results:
    """Results that know whether they were waited for."""

    def __init__(self) -> None:
        self.waited = False

    def block_until_ready(self):
        self.waited = True
        return self


def unless_fake(tensor):
    return not isinstance(tensor, torch._subclasses.FakeTensor)


def test_results_of_this_thread_are_not_waited_for():
    results = Results()
    assert eager.finished(lambda: results, (), Watch) is results
    assert not results.waited


def test_what_another_thread_ran_is_waited_for():
    results = Results()
    eager.finished(lambda: results, (), lambda: Watch(succeeded=False))
    assert results.waited


def test_a_failure_that_jax_has_not_told_is_raised():
    cause = KeyError("why")
    failure = TorchExecutionError("words")
    failure.__cause__ = cause
    with pytest.raises(TorchExecutionError) as raised:
        eager.finished(Results, (), lambda: Watch(failure, succeeded=False))
    assert raised.value.__cause__ is cause


def test_calls_and_their_failures():
    x = jnp.arange(3.0)

    def fails(x):
        if unless_fake(x):
            raise KeyError("why")
        return x

    wrapped = jax_callable(fails)
    for _ in range(2):
        with pytest.raises(TorchExecutionError, match="why") as raised:
            wrapped(x)
        assert isinstance(raised.value.__cause__, KeyError)
        assert_equal(jax_callable(lambda x: x + 1)(x), x + 1)
    kept = []
    with pytest.raises(EscapeError):
        jax_callable(lambda x: kept.append(x) or x + 1 if unless_fake(x) else x + 1)(x)
    gradient = jax.grad(lambda x: jax_callable(torch.sin)(x).sum())(x)
    assert_close(gradient, np.cos(x))


def test_a_failure_within_that_torch_code_handles_is_none():
    def fails(x):
        if unless_fake(x):
            raise KeyError("inside")
        return x

    inner = jax_callable(fails)

    def outer(x):
        if unless_fake(x):
            with pytest.raises(TorchExecutionError, match="inside"):
                inner(jnp.ones(2))
        return x * 2

    assert_equal(jax_callable(outer)(jnp.arange(3.0)), [0, 2, 4])


def test_threads_see_their_own_failures():
    found = {}

    def work(number):
        def function(x):
            if unless_fake(x) and number % 2:
                raise ValueError(f"number {number}")
            return x + number

        wrapped = jax_callable(function)
        for _ in range(50):
            try:
                found[number] = float(wrapped(jnp.zeros(())))
            except TorchExecutionError as error:
                found[number] = str(error.__cause__)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: f"number {n}" if n % 2 else float(n) for n in range(6)}
