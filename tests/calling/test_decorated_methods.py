"""Methods: which instance has which plans, and for how long."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import weakref

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge import jax_callable

# Out of reach of what is put back after planning.
bodies: list[float] = []
note = bodies.append


@pytest.fixture(autouse=True)
def _no_bodies():
    bodies.clear()


@pytest.fixture
def x():
    return jnp.arange(3.0)


def scaled_by_k(self, x):
    note(self.k)
    return x * self.k


class WithDict:
    def __init__(self, k):
        self.k = k

    scaled = jax_callable(scaled_by_k)


class Slotted:
    __slots__ = ("k",)

    def __init__(self, k):
        self.k = k

    scaled = jax_callable(scaled_by_k)


class Referable(Slotted):
    __slots__ = ("__weakref__",)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    k: float

    scaled = jax_callable(scaled_by_k)


@dataclasses.dataclass(slots=True)
class Unhashable:
    """And equal to others that hold the same."""

    k: float
    extra: float = dataclasses.field(default=0.0, compare=False)

    @jax_callable
    def scaled(self, x):
        note(self.k)
        return x * (self.k + self.extra)


KINDS = [WithDict, Slotted, Referable, Frozen, Unhashable]


@pytest.mark.parametrize("kind", KINDS)
def test_a_method_is_planned_once(kind, x):
    one, other = kind(2.0), kind(3.0)
    for _ in range(2):
        bodies.clear()
        assert_equal(one.scaled(x), 2 * x)
        assert_equal(other.scaled(x), 3 * x)
        assert_equal(jax.jit(one.scaled)(x), 2 * x)
        assert_equal(jax.grad(lambda x: other.scaled(x).sum())(x), jnp.full(3, 3.0))
    # One run for each call; planning again would add to that.
    assert bodies == [2.0, 3.0, 2.0, 3.0]
    assert one.scaled is one.scaled


def test_equal_instances_have_plans_of_their_own(x):
    one, other = Unhashable(2.0, 0.0), Unhashable(2.0, 5.0)
    assert one == other
    assert_equal(one.scaled(x), 2 * x)
    assert_equal(other.scaled(x), 7 * x)
    assert_equal(one.scaled(x), 2 * x)


@pytest.mark.parametrize("kind", [WithDict, Referable])
def test_the_last_few_instances_are_kept(kind, x):
    class Few(kind):
        scaled = jax_callable(lambda self, x: x * self.k)

    watched = []
    for k in range(50):
        few = Few(float(k))
        assert_equal(few.scaled(x), k * x)
        watched.append(weakref.ref(few))
    del few
    gc.collect()
    alive = [ref for ref in watched if ref() is not None]
    assert 0 < len(alive) <= 32
    assert alive == watched[-len(alive) :]
    # And none without the method.
    del Few.scaled
    gc.collect()
    assert not [ref for ref in watched if ref() is not None]


def test_a_method_that_is_held_keeps_its_plans(x):
    held = Slotted(7.0).scaled
    for k in range(50):
        Slotted(float(k)).scaled(x)
    again = held.torch.__self__.scaled
    assert again is held
    assert_equal(held(x), 7 * x)
    jitted = jax.jit(lambda x: Slotted(9.0).scaled(x))
    assert_equal(jitted(x), 9 * x)
    for k in range(50):
        Slotted(float(k)).scaled(x)
    gc.collect()
    assert_equal(jitted(x), 9 * x)


@pytest.mark.parametrize("kind", [WithDict, Referable])
def test_a_replaced_method_never_finds_plans_of_its_predecessor(kind, x):
    class Replaced(kind):
        if kind is not WithDict:
            __slots__ = ()

    instance = Replaced(2.0)
    for number in range(200):
        # Numbers are used again soon after what had them has gone.
        Replaced.scaled = jax_callable(lambda self, x, number=number: x + number)
        bound = instance.scaled
        assert bound.torch.__func__ is Replaced.scaled.torch
        if number % 50 == 0:
            assert_equal(instance.scaled(x), x + number)
        del bound, Replaced.scaled
        gc.collect(0)


@pytest.mark.parametrize("kind", [WithDict, Slotted, Unhashable])
def test_copies_have_plans_of_their_own(kind, x):
    original = kind(2.0)
    original.scaled(x)
    for again in (
        copy.copy(original),
        copy.deepcopy(original),
        pickle.loads(pickle.dumps(original)),
    ):
        again.k = 9.0
        assert_equal(again.scaled(x), 9 * x)
    assert_equal(original.scaled(x), 2 * x)


def test_class_methods_and_static_methods(x):
    class Holder:
        k = 2.0

        @classmethod
        @jax_callable
        def of_class(cls, x):
            return x * cls.k

        @staticmethod
        @jax_callable
        def static(x):
            return x * 3

        inner_static = jax_callable(staticmethod(lambda x: x * 4))

    for holder in (Holder, Holder()):
        assert_equal(holder.of_class(x), 2 * x)
        assert_equal(holder.static(x), 3 * x)
    assert_equal(Holder().inner_static(x), 4 * x)


def test_what_python_would_not_bind_is_not_bound(x):
    class Holder:
        exp = jax_callable(torch.exp)
        layer = jax_callable(torch.nn.Identity())

    assert Holder().exp is Holder.exp
    assert_equal(Holder().layer(x), x)


def test_a_module_with_a_decorated_forward(x):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((3,), 2.0))

        @jax_callable
        def forward(self, x):
            return x * self.weight

    layer = Layer()
    assert_equal(layer.forward(x), 2 * x)
    assert_equal(layer(torch.ones(3)).detach(), jnp.full(3, 2.0))
    assert_equal(jax_callable(layer)(x), 2 * x)
