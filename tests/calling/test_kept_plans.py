"""Of ways of calling a function no more are kept than are to be."""

import gc
import threading
import warnings
import weakref

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close, is_close
from jaxtorch_bridge import jax_callable, settings
from jaxtorch_bridge.errors import BridgeWarning
from jaxtorch_bridge.torchside.handler.native_module import op_keys

X = jnp.arange(3.0)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(settings, "most_plans", 4)


def for_each(values, run):
    for value in values:
        run(value)


def ops_of(name):
    gc.collect()
    gc.collect()
    return [key for key in op_keys() if key.startswith(name + "@")]


def test_a_static_value_that_differs_in_every_call():
    f = jax_callable(lambda x, factor: x * factor, name="scaled")
    with pytest.warns(BridgeWarning) as caught:
        for_each(range(20), lambda step: assert_close(f(X, step / 4), X * (step / 4)))
    (warning,) = caught
    assert "scaled: of 4 ways of calling it" in str(warning.message)
    assert "`factor` (0.75, now 1.0)" in str(warning.message)
    assert warning.filename == __file__
    assert len(f._ways) == len(f._known) == 4
    assert len(ops_of("scaled")) == 4
    # What was dropped comes back.
    assert_close(f(X, 0.0), X * 0)


def test_derivatives_go_with_them():
    f = jax_callable(lambda x, factor: (x * factor).sum(), name="with_slopes")

    def run(step):
        assert_close(jax.grad(f)(X, float(step)), jnp.full(3, float(step)))
        assert_close(jax.vmap(lambda x: f(x, float(step)))(X), X * step)

    with pytest.warns(BridgeWarning, match="`factor`"):
        for_each(range(12), run)
    assert len(f._ways) == 4
    # Two calls, a forward, a backward and a batch.
    assert len(ops_of("with_slopes")) <= 4 * 5


def test_numbers_and_tensors_that_are_bound_anew():
    factor, shift = 1.0, torch.zeros(3)

    def f(x):
        return x * factor + shift

    g = jax_callable(f, name="around")
    seen = []

    def run(step):
        nonlocal factor, shift
        factor, shift = float(step), torch.full((3,), float(step))
        seen.append(weakref.ref(shift))
        assert_close(g(X), X * step + step)

    with pytest.warns(BridgeWarning, match="`factor`") as caught:
        for_each(range(9), run)
    assert "`shift`" in str(caught[0].message)
    gc.collect()
    assert sum(one() is not None for one in seen) <= 4


def test_what_is_used_again_stays():
    traced = []

    def f(x, factor):
        traced.append(factor)
        return x * factor

    g = jax_callable(f)
    g(X, 100.0)

    def run(step):
        g(X, float(step))
        traced.clear()
        g(X, 100.0)
        assert traced == [100.0]  # the run, and no evaluation before

    with pytest.warns(BridgeWarning, match="ways of calling"):
        for_each(range(12), run)


def test_compiled_programs_keep_their_own():
    f = jax_callable(lambda x, factor: x * factor)
    compiled = jax.jit(lambda x: f(x, 7.0))
    compiled(X)
    with pytest.warns(BridgeWarning, match="ways of calling"):
        for_each(range(12), lambda step: f(X, step / 8))
    gc.collect()
    assert_close(compiled(X), X * 7)
    assert_close(f(X, 7.0), X * 7)


def test_structures_and_settings_are_told():
    f = jax_callable(lambda xs: sum(xs))
    with pytest.warns(BridgeWarning, match="the structure of the arguments"):
        for_each(range(1, 7), lambda count: f([X] * count))
    g = jax_callable(lambda x, how: x * 2)
    with pytest.warns(BridgeWarning, match=r"`how` \(an array, now c3\)|`how` \(c2, now c3\)"):
        for_each(("c0", "c1", X, "c2", "c3", "c4"), lambda how: g(X, how))


def test_no_limit(monkeypatch):
    monkeypatch.setattr(settings, "most_plans", None)
    f = jax_callable(lambda x, factor: x * factor)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(12):
            f(X, float(step))
    assert len(f._ways) == 12
    monkeypatch.setattr(settings, "most_plans", 2)
    with pytest.warns(BridgeWarning):
        f(X, 99.0)
    assert len(f._ways) == 2
    with pytest.raises(ValueError, match="a number of plans, at least 1, or None; got 0"):
        settings.most_plans = 0


@pytest.mark.filterwarnings("ignore:.*ways of calling")
def test_threads_that_call_at_once():
    f = jax_callable(lambda x, factor: x * factor)
    wrong = []

    def work(first):
        for step in range(first, first + 12):
            if not is_close(f(X, float(step)), X * step):
                wrong.append(step)

    threads = [threading.Thread(target=work, args=(6 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    f(X, -1.0)
    assert len(f._ways) <= 4
    assert len(f._known) <= 4


def test_a_limit_of_one(monkeypatch):
    monkeypatch.setattr(settings, "most_plans", 1)
    f = jax_callable(lambda x, text, *, factor=1: x * factor)
    f(X, "a" * 3000, factor=1)
    with pytest.warns(BridgeWarning, match="ways of calling") as caught:
        assert_close(f(X, "b" * 3000, factor=2), X * 2)
    assert "`factor` (1, now 2)" in str(caught[0].message)
    assert len(str(caught[0].message)) < 600
