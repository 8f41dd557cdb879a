"""Nothing is built before it is needed, and settings of torch are those of planning."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable

pytestmark = pytest.mark.derivatives

X = jnp.array([0.5, -1.0, 2.0])


def derivatives(op):
    return op.derived.named("linearize", "pushforward")


def orders_of(op):
    """The orders of the derivatives that have been built, below an op."""
    found = set()
    for built in derivatives(op):
        found.add(op.fn.order + 1)
        inner = [derived.fn for derived, _ in getattr(built, "_derived", {}).values()]
        found |= {fn.order for fn in inner}
        for _, linear_call in getattr(built, "_derived", {}).values():
            found |= orders_of(linear_call.op)
    return found


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_each_order_is_built_when_it_is_asked_for(jit):
    f = jax_callable(lambda x: torch.tanh(x) * x)
    op = f._planned((X,), {}).op

    def loss(x):
        return (f(x) ** 2).sum()

    jit(f)(X)
    assert derivatives(op) == ()
    jit(jax.grad(loss))(X)
    assert orders_of(op) == {1}
    jit(jax.grad(lambda x: jax.grad(loss)(x).sum()))(X)
    assert orders_of(op) == {1, 2}


def test_the_default_device_of_planning_holds_wherever_it_runs():
    f = jax_callable(lambda x: x * x + torch.ones(3))
    run, slope = jax.jit(f), jax.jit(jax.grad(lambda x: f(x).sum()))
    again, slope_again = jax.jit(f), jax.jit(jax.grad(lambda x: f(x).sum()))
    wanted = np.asarray(X) ** 2 + 1
    assert_close(run(X), wanted)
    assert_close(slope(X), 2 * X)
    with torch.device("meta"):
        # A compiled program keeps what it was planned under, and leaves the caller's alone.
        assert_close(run(X), wanted)
        assert_close(slope(X), 2 * X)
        assert torch.ones(1).device.type == "meta"
    assert_close(again(X), wanted)
    assert_close(slope_again(X), 2 * X)


def test_the_default_device_is_a_part_of_the_key():
    f = jax_callable(lambda x: x * x)
    here = f.plan(X)
    with torch.device("meta"):
        there = f.plan(X)
    assert here.context == ()
    assert there.context == (("default_device", "meta"),)
    assert here.key != there.key
