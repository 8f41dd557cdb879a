"""Eager derivatives and batches read what plain calls read: attributes, class attributes, items."""

from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.closure.held_values import HeldValues

X = jnp.array([1.0, 2.0, -0.5])
BATCH = jnp.stack([X, 2 * X])
SCALE = 2.0


def of_instance():
    held = types.SimpleNamespace(scale=2.0)
    return lambda x: x * x * held.scale, lambda: setattr(held, "scale", 5.0)


def of_class():
    class Held:
        scale = 2.0

    held = Held()
    return lambda x: x * x * held.scale, lambda: setattr(Held, "scale", 5.0)


def of_method():
    class Held:
        def __init__(self):
            self.scale = 2.0

        def run(self, x):
            return x * x * self.scale

    held = Held()
    return held.run, lambda: setattr(held, "scale", 5.0)


def of_list():
    held = [2.0]
    return lambda x: x * x * held[0], lambda: held.__setitem__(0, 5.0)


def of_dict():
    held = {"scale": 2.0}
    return lambda x: x * x * held["scale"], lambda: held.update(scale=5.0)


def of_nested():
    held = types.SimpleNamespace(inner=types.SimpleNamespace(scales=[2.0]))
    return lambda x: x * x * held.inner.scales[0], lambda: held.inner.scales.__setitem__(0, 5.0)


def of_module():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = 2.0

        def forward(self, x):
            return x * x * self.scale

    module = Scaled()
    return module, lambda: setattr(module, "scale", 5.0)


def of_global():
    return lambda x: x * x * SCALE, lambda: globals().update(SCALE=5.0)


WAYS = {
    "plain": lambda f: f(X) / X**2,
    "vmap": lambda f: jax.vmap(f)(BATCH) / BATCH**2,
    "grad": lambda f: jax.grad(lambda x: f(x).sum())(X) / (2 * X),
    "jvp": lambda f: jax.jvp(f, (X,), (X,))[1] / (2 * X**2),
    "hessian": lambda f: jnp.diag(jax.hessian(lambda x: f(x).sum())(X)) / 2,
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda x: f(x).sum()))(BATCH) / (2 * BATCH),
}
PLACES = [of_instance, of_class, of_method, of_list, of_dict, of_nested, of_module, of_global]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_every_eager_way_sees_what_a_plain_call_sees(place, monkeypatch):
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    function, change = place()
    wrapped = jax_callable(function)
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 2.0), label=name)
    change()
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 5.0), label=name)


def test_what_the_function_itself_changes_makes_nothing_anew():
    traces = []
    held = types.SimpleNamespace(calls=0, seen={}, scale=2.0)

    def counted(x):
        traces.append(1)
        held.calls += 1
        held.seen[held.calls] = True
        return x * x * held.scale

    wrapped = jax_callable(counted)
    for way in WAYS.values():
        way(wrapped)
    for name in ("vmap", "jvp", "vmap of grad"):
        WAYS[name](wrapped)
        before = len(traces)
        WAYS[name](wrapped)
        assert len(traces) == before, name
    held.scale = 5.0
    assert_close(WAYS["vmap"](wrapped), jnp.full_like(BATCH, 5.0))


def test_an_object_that_takes_the_place_of_another_in_memory_is_another():
    class Box:
        pass

    box, values = Box(), HeldValues()
    for number in range(200):
        box.inner = Box()
        box.inner.table = [float(number)]
        before = values.picture([box])
        # The old ones are let go of first, so that new ones get their numbers.
        box.inner = None
        box.inner = Box()
        box.inner.table = [float(number)]
        assert not values.same(before, values.picture([box]))


class Registry:
    entries = {"first": 1}
    latest = None


def test_classes_lose_fakes_alone():
    """What an import inside of the function has registered would not come again."""

    def f(x):
        Registry.entries["second"] = 2
        Registry.latest = "second"
        Registry.table = x * 2
        return x + 1

    before = dict(Registry.entries)
    jax.eval_shape(jax_callable(f), jnp.ones(3))
    assert Registry.entries == {**before, "second": 2}
    assert Registry.latest == "second"
    assert not hasattr(Registry, "table")


@pytest.mark.parametrize("change", ["an entry", "the length"])
def test_long_lists_are_looked_at_to_the_end(change):
    table = [1.0] * 3000

    def f(x):
        return x * table[2500] * len(table)

    g = jax_callable(f)
    x = jnp.ones((2, 3))
    assert_close(jax.vmap(g)(x), 3000 * x)
    if change == "an entry":
        table[2500] = 2.0
        want = 6000 * x
    else:
        table.append(1.0)
        want = 3001 * x
    assert_close(jax.vmap(g)(x), want)
