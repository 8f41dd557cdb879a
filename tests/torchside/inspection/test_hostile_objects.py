"""Looking at what a function closes over runs other people's code, and must never fail a call."""

import collections
import collections.abc
import enum
import functools
import itertools
import types
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import from_module, jax_callable
from jaxtorch_bridge.torchside.closure.behaviour_text import behaviour_of


class LazyAttributes:
    def __init__(self):
        self.number = 1

    def __getattr__(self, name):
        raise RuntimeError(f"{name} is not installed")


class NoAttributes:
    def __getattribute__(self, name):
        raise KeyError(name)


class NoComparison:
    def __eq__(self, other):
        raise RuntimeError("not comparable")

    def __hash__(self):
        raise RuntimeError("not hashable")


class NoClass:
    @property
    def __class__(self):
        raise RuntimeError("no class")


class Computing:
    asked = 0

    @property
    def total(self):
        Computing.asked += 1
        raise RuntimeError("computed")

    @functools.cached_property
    def kept(self):
        return self.total


class NoText:
    def __repr__(self):
        raise RuntimeError("no text")


class LazyDict(dict):
    """As transformers' tables of models: asking for values would import all of them."""

    def __getitem__(self, key):
        raise RuntimeError("imports everything")

    def values(self):
        raise RuntimeError("imports everything")

    items = __iter__ = keys = values


def unusable(kind):
    """A container whose own methods all raise."""

    def method(self, *args):
        raise RuntimeError("not now")

    names = ("__len__", "__iter__", "__eq__", "__contains__", "__getitem__", "clear", "copy")
    more = ("keys", "values", "items", "get", "update", "extend", "append", "pop")
    return type("Unusable", (kind,), {"__hash__": None, **dict.fromkeys(names + more, method)})


class Slots:
    __slots__ = ("never_set",)


class Meta(type):
    def __getattribute__(cls, name):
        if name in ("__mro__", "__module__", "__qualname__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


class NoName(metaclass=Meta):
    pass


def lazy_module():
    module = types.ModuleType("lazy")

    def missing(name):
        raise ImportError(name)

    module.__getattr__ = missing
    return module


class Linked:
    def __init__(self, following):
        self.following = following


def nested(wrap, times):
    return functools.reduce(lambda inner, _: wrap(inner), range(times), None)


class Color(enum.Enum):
    RED = object()


THINGS = {
    "lazy attributes": LazyAttributes(),
    "no attributes": NoAttributes(),
    "no comparison": NoComparison(),
    "no class": NoClass(),
    "computing": Computing(),
    "no text": NoText(),
    "lazy dict": LazyDict(a=1),
    "unusable dict": unusable(dict)(a=1),
    "unusable ordered dict": unusable(collections.OrderedDict)(),
    "unusable list": unusable(list)([1]),
    "unusable set": unusable(set)([1]),
    "unusable deque": unusable(collections.deque)([1]),
    "slots": Slots(),
    "class without a name": NoName,
    "lazy module": lazy_module(),
    "torch.classes": torch.classes,
    "torch.ops": torch.ops,
    "mock": mock.MagicMock(),
    "mock of a module": mock.MagicMock(spec=torch.nn.Module),
    "long linked list": nested(Linked, 3000),
    "deep tuple": nested(lambda inner: (inner,), 3000),
    "set of objects": {LazyAttributes(), Slots(), Linked(None), Linked(None)},
    "enum": Color.RED,
    "property": vars(Computing)["total"],
}
X = jnp.arange(6.0).reshape(2, 3)


def closing_over(thing):
    def f(x):
        if x.shape[0] > 99:
            return thing.not_there.deeper(x)
        return x * 2

    return f


def as_default(thing):
    def f(x, thing=thing):
        return x * 2

    return f


def in_containers(thing):
    held = [thing, {"one": thing}, (thing,)]

    def f(x):
        return x * 2 if held else x

    return f


def of_an_object(thing):
    class Owner:
        def __init__(self):
            self.held = thing
            self.more = [thing]

        def run(self, x):
            return x * 2

    return Owner().run


def of_a_module(thing):
    class Doubling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            # Torch's own `__setattr__` asks for the class.
            self.__dict__["held"] = thing
            self.more = [thing]

        def forward(self, x):
            return x * 2

    return Doubling()


@pytest.mark.parametrize(
    "make", [closing_over, as_default, in_containers, of_an_object, of_a_module]
)
@pytest.mark.parametrize("thing", THINGS)
def test_what_a_function_leads_to_cannot_fail_its_calls(thing, make):
    f = jax_callable(make(THINGS[thing]))
    Computing.asked = 0
    assert_close(f(X), 2 * X)
    assert_close(f(X), 2 * X)
    assert_close(jax.jit(f)(X), 2 * X)
    assert_close(jax.grad(lambda x: f(x).sum())(X), jnp.full_like(X, 2))
    assert_close(jax.jvp(f, (X,), (X,))[1], 2 * X)
    assert_close(jax.hessian(lambda x: (f(x) ** 2).sum())(X[0]), 8 * jnp.eye(3))
    assert_close(jax.vmap(f)(X), 2 * X)
    assert "float32[2, 3]" in f.explain(X)
    assert Computing.asked == 0


@pytest.mark.parametrize("thing", ["lazy attributes", "computing", "slots"])
def test_from_module_takes_modules_that_hold_them(thing):
    taken = from_module(of_a_module(THINGS[thing]))
    assert_close(taken.apply(taken.params, X), 2 * X)


def test_attributes_that_only_are_called_like_torchs_tables_of_hooks():
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lin = torch.nn.Linear(3, 1)
            self.num_hooks = 2
            self.my_hooks = [1]
            self.late_hooks = None
            self.named_hooks = {"a": print}

        def forward(self, x):
            return self.lin(x) * self.num_hooks

    net = Net()
    f = jax_callable(net)
    want = net(torch.tensor(X.tolist()))
    assert_close(f(X), want)
    taken = from_module(net)
    assert_close(taken.apply(taken.params, X), want)
    # It counts as what it is: a number that the graph's plan depends on.
    before = f._planner.closure.details()
    net.num_hooks = 3
    assert f._planner.closure.details() != before


LINEAR = torch.nn.Sequential(torch.nn.Linear(3, 1)).eval()
# Some of these warn that they are deprecated.
MADE = {
    "fx": lambda: torch.fx.symbolic_trace(LINEAR),
    "exported": lambda: torch.export.export(LINEAR, (torch.ones(2, 3),)).module(),
    "scripted": lambda: torch.jit.script(LINEAR),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(LINEAR)),
    "optimized": lambda: torch.jit.optimize_for_inference(torch.jit.script(LINEAR)),
    "traced": lambda: torch.jit.trace(LINEAR, torch.ones(2, 3)),
}


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
def test_modules_that_torchs_own_tools_make(make):
    f = jax_callable(make())
    want = LINEAR(torch.tensor(X.tolist()))
    assert_close(f(X), want)
    assert_close(jax.jit(f)(X), want)
    slope = jax.grad(lambda x: f(x).sum())(X)
    assert_close(slope, LINEAR[0].weight.detach().expand(2, 3))


def test_chains_of_decorators_of_any_length():
    def around(inner):
        return lambda x: inner(x) if x.shape[0] > 99 else x * 2

    f = functools.reduce(lambda inner, _: around(inner), range(1500), lambda x: x * 2)
    assert_close(jax_callable(f)(X), 2 * X)


def test_what_cannot_be_read_counts_as_state():
    lines, stateful = behaviour_of(closing_over(NoAttributes()))
    assert stateful
    assert any("unreadable" in line for line in lines)


def test_sets_have_one_order_in_every_process():
    one, other = Linked(1), Linked(1)
    # Two of a class cannot be put into an order that another process would find.
    assert behaviour_of({one, other})[1]
    lines, _ = behaviour_of({3, "a", torch.float32, Linked, len, (1, "b"), frozenset({2, 1})})
    again, _ = behaviour_of({frozenset({1, 2}), len, Linked, (1, "b"), torch.float32, "a", 3})
    assert lines == again


class OwnTable(collections.abc.Mapping):
    def __init__(self, **entries):
        self._entries = entries

    def __getitem__(self, name):
        return self._entries[name]

    def __iter__(self):
        return iter(self._entries)

    def __len__(self):
        return len(self._entries)


@pytest.mark.parametrize(
    "make",
    [
        OwnTable,
        lambda **entries: collections.ChainMap({}, entries),
        collections.UserDict,
        lambda **entries: types.MappingProxyType(entries),
    ],
    ids=["own", "chain", "user", "proxy"],
)
def test_what_a_table_holds_is_a_part_of_the_function(make):
    """Or a program from elsewhere would run with other numbers."""

    def reading(table):
        return lambda x: x * table["scale"]

    two, three = make(scale=2.0), make(scale=3.0)
    assert behaviour_of(reading(two))[0] == behaviour_of(reading(make(scale=2.0)))[0]
    assert behaviour_of(reading(two))[0] != behaviour_of(reading(three))[0]


def test_ordered_dicts_keep_the_order_that_they_have():
    table = collections.OrderedDict(a=1, b=2)
    before, _ = behaviour_of(table)
    table.move_to_end("a")
    assert behaviour_of(table)[0] != before


class EndlessList(list):
    def __iter__(self):
        while True:
            yield 1


class EndlessSet(set):
    def __iter__(self):
        while True:
            yield 1


class LazyTable(collections.abc.Mapping):
    """As of a data set, whose entries are read from a disk."""

    def __init__(self):
        self.read = []

    def __getitem__(self, name):
        self.read.append(name)
        return float(name)

    def __iter__(self):
        return iter(range(1000))

    def __len__(self):
        return 1000


class EndlessTable(LazyTable):
    def __iter__(self):
        return itertools.count()


@pytest.mark.parametrize("make", [EndlessList, EndlessSet, EndlessTable, LazyTable])
def test_containers_are_not_asked_for_what_they_hold(make):
    held = make()
    for thing in (held, [held], types.MappingProxyType(held) if hasattr(held, "read") else held):
        call = jax_callable(lambda x, thing=thing: (thing, x * 2)[1])
        assert_close(call(X), 2 * X)
        assert_close(jax.vmap(call)(X), 2 * X)
        assert_close(jax.jvp(call, (X,), (X,))[1], 2 * X)
    assert not getattr(held, "read", [])


def test_a_lazy_table_is_read_where_the_function_reads_it():
    held = LazyTable()
    call = jax_callable(lambda x: x * held[3])
    assert_close(call(X), 3 * X)
    assert set(held.read) == {3}
