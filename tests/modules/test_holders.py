"""Layers and weights that something else than a layer holds: objects, and other containers."""

import collections
import dataclasses
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import from_module

X = jnp.arange(3.0)


@dataclasses.dataclass
class Record:
    layer: Any
    scale: float = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    layer: Any


class Both:
    __slots__ = ("__dict__", "layer")

    def __init__(self, layer):
        self.layer = layer
        self.more = [layer]


class WithArguments:
    def __new__(cls, layer):
        return object.__new__(cls)

    def __init__(self, layer):
        self.layer = layer


class Fault(Exception):
    def __init__(self, layer):
        super().__init__("words")
        self.layer = layer


class Pair(NamedTuple):
    layer: Any


class OwnDict(dict):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer


class OwnList(list):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer


def namespace(layer):
    return types.SimpleNamespace(layer=layer)


def its_layer(held):
    return held.layer


HOLDERS = {
    "namespace": (namespace, its_layer),
    "namespace in a namespace": (lambda it: namespace([namespace(it)]), lambda h: h.layer[0].layer),
    "namespaces in a list": (lambda it: [namespace(it)], lambda h: h[0].layer),
    "records in a dict of lists": (lambda it: {"a": [Record(it)]}, lambda h: h["a"][0].layer),
    "record": (Record, its_layer),
    "slots": (Slotted, its_layer),
    "slots and a dict": (Both, lambda h: h.more[0]),
    "arguments of __new__": (WithArguments, its_layer),
    "exception": (Fault, its_layer),
    "named tuple": (Pair, its_layer),
    "attribute of a dict": (OwnDict, its_layer),
    "attribute of a list": (lambda it: [OwnList(it)], lambda h: h[0].layer),
    "deque": (lambda it: collections.deque([it], maxlen=2), lambda h: h[0]),
    "frozenset": (lambda it: frozenset([it]), lambda h: next(iter(h))),
    "set in a tuple": (lambda it: ({it},), lambda h: next(iter(h[0]))),
    "mapping proxy": (lambda it: types.MappingProxyType({"a": it}), lambda h: h["a"]),
    "user dict": (lambda it: collections.UserDict(a=it), lambda h: h["a"]),
    "chain map": (lambda it: collections.ChainMap({"a": it}), lambda h: h["a"]),
}


class Holding(torch.nn.Module):
    def __init__(self, hold, take, weight=False):
        super().__init__()
        self.inner = torch.nn.Linear(3, 3)
        self.held = hold(self.inner.weight if weight else self.inner)
        self.take = take

    def forward(self, x):
        held = self.take(self.held)
        return torch.tanh(held(x) if isinstance(held, torch.nn.Module) else held @ x)


def assert_as_torch(module):
    net = from_module(module)
    params = jax.tree.map(lambda one: one + 1, net.params)
    value, gradient = jax.value_and_grad(lambda p: net.apply(p, X).sum())(params)
    assert_close(jax.jit(net.apply)(net.params, X), module(torch.arange(3.0)).detach())
    with torch.no_grad():
        for one in module.parameters():
            one += 1
    loss = module(torch.arange(3.0)).sum()
    loss.backward()
    assert_close(value, loss.detach())
    assert_close(gradient["inner"]["weight"], module.inner.weight.grad)


@pytest.mark.parametrize(("hold", "take"), HOLDERS.values(), ids=HOLDERS.keys())
def test_a_layer_is_that_of_the_call_wherever_it_is_held(hold, take):
    module = Holding(hold, take)
    held = module.held
    assert_as_torch(module)
    assert module.held is held
    assert take(held) is module.inner


@pytest.mark.parametrize("name", ["namespace", "namespaces in a list", "record", "exception"])
def test_a_weight_is_that_of_the_call_wherever_an_object_holds_it(name):
    hold, take = HOLDERS[name]
    module = Holding(hold, take, weight=True)
    assert_as_torch(module)
    assert take(module.held) is module.inner.weight


def test_what_an_object_keeps_stays_with_the_call():
    class Counting(Holding):
        def forward(self, x):
            self.held.scale = self.held.scale + 1
            return super().forward(x) * self.held.scale

    module = Counting(Record, its_layer)
    net = from_module(module)
    with pytest.warns(match=r"held\.scale"):
        first = net.apply(net.params, X)
    assert_close(net.apply(net.params, X), first)
    assert module.held.scale == 2.0
