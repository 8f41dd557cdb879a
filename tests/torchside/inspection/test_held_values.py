"""Eager derivatives and batches read what plain calls read: attributes, class attributes, items."""

from __future__ import annotations

import array
import collections
import contextvars
import ctypes
import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import BridgeWarning, PlanningError, jax_callable
from jaxtorch_bridge.torchside.inspection.held_values import HeldValues

# A module that somebody has typed in, under a name by which it can be imported.
own_settings = types.ModuleType("own_settings")
own_settings.SCALE = 2.0
sys.modules["own_settings"] = own_settings

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


def of_bytearray():
    held = bytearray([2, 3])
    return lambda x: x * x * float(held[0]), lambda: held.__setitem__(0, 5)


def of_numpy():
    held = types.SimpleNamespace(scales=[np.array([2.0, 3.0])])
    return lambda x: x * x * float(held.scales[0][0]), lambda: held.scales[0].__setitem__(0, 5.0)


def of_array():
    held = {"scale": array.array("d", [2.0])}
    return lambda x: x * x * held["scale"][0], lambda: held["scale"].__setitem__(0, 5.0)


def of_memory_view():
    held = memoryview(bytearray([3, 2, 3]))[1:]
    return lambda x: x * x * float(held[0]), lambda: held.__setitem__(0, 5)


class Settings:
    scale = 2.0


class Slotted:
    __slots__ = ("scale",)


def of_class_itself():
    return lambda x: x * x * Settings.scale, lambda: setattr(Settings, "scale", 5.0)


def of_slots():
    held = Slotted()
    held.scale = 2.0
    return lambda x: x * x * held.scale, lambda: setattr(held, "scale", 5.0)


def of_function():
    def helper(x):
        return x * x * helper.scale

    helper.scale = 2.0
    return lambda x: helper(x), lambda: setattr(helper, "scale", 5.0)


def of_function_in_a_table():
    scale = 2.0
    held = {"apply": lambda x: x * x * scale}

    def change():
        nonlocal scale
        scale = 5.0

    return lambda x: held["apply"](x), change


def of_callable_in_a_table():
    class Schedule:
        def __init__(self):
            self.scale = 2.0

        def __call__(self):
            return self.scale

    held = {"schedule": Schedule()}
    return lambda x: x * x * held["schedule"](), lambda: setattr(held["schedule"], "scale", 5.0)


def of_replaced_method():
    class Schedule:
        def get(self):
            return 2.0

    held = Schedule()
    return lambda x: x * x * held.get(), lambda: setattr(Schedule, "get", lambda self: 5.0)


def in_a_module():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = {"scales": [2.0]}

        def forward(self, x):
            return x * x * self.table["scales"][0]

    module = torch.nn.Sequential(Scaled())
    return module, lambda: module[0].table["scales"].__setitem__(0, 5.0)


def in_a_module_that_is_closed_over():
    module, change = in_a_module()
    return lambda x: module(x), change


def of_python_module():
    return lambda x: x * x * own_settings.SCALE, lambda: setattr(own_settings, "SCALE", 5.0)


def of_python_module_in_a_module():
    class Scaled(torch.nn.Module):
        def forward(self, x):
            return x * x * own_settings.SCALE

    return Scaled(), lambda: setattr(own_settings, "SCALE", 5.0)


def of_object_in_a_python_module():
    own_settings.model = Settings()
    return (
        lambda x: x * x * own_settings.model.scale,
        lambda: setattr(own_settings.model, "scale", 5.0),
    )


def of_import_inside():
    def f(x):
        import own_settings as settings

        return x * x * settings.SCALE

    return f, lambda: setattr(own_settings, "SCALE", 5.0)


def of_name_imported_inside():
    def f(x):
        from own_settings import SCALE

        return x * x * SCALE

    return f, lambda: setattr(own_settings, "SCALE", 5.0)


def of_python_module_beside_an_attribute_of_that_name():
    class Result:
        pass

    def f(x):
        own_settings.calls += 1  # not watched, or each call would be planned anew
        result = Result()
        result.SCALE = x * x * own_settings.SCALE
        return result.SCALE

    own_settings.calls = 0
    return f, lambda: setattr(own_settings, "SCALE", 5.0)


def of_one_among_thousands():
    held = [types.SimpleNamespace(scale=2.0) for _ in range(1001)]
    return lambda x: x * x * held[10].scale, lambda: setattr(held[10], "scale", 5.0)


def of_long_dict():
    held = types.SimpleNamespace(table={f"{n}": 2.0 for n in range(20_000)})
    return lambda x: x * x * held.table["15000"], lambda: held.table.update({"15000": 5.0})


def of_deque():
    held = collections.deque([2.0], maxlen=3)
    return lambda x: x * x * held[0], lambda: held.__setitem__(0, 5.0)


def of_a_subclass_of_dict():
    class Config(dict):
        pass

    held = Config(other=1)
    held.scale = 2.0
    return lambda x: x * x * held.scale, lambda: setattr(held, "scale", 5.0)


def of_a_class_of_a_container():
    class Config(dict):
        scale = 2.0

    held = Config(other=1)
    return lambda x: x * x * held.scale, lambda: setattr(Config, "scale", 5.0)


def of_a_tuple():
    held = ({"scales": [2.0]},)
    return lambda x: x * x * held[0]["scales"][0], lambda: held[0]["scales"].__setitem__(0, 5.0)


def of_a_tuple_in_a_tuple():
    held = (1, ("a", types.SimpleNamespace(scale=2.0)))
    return lambda x: x * x * held[1][1].scale, lambda: setattr(held[1][1], "scale", 5.0)


def of_a_chain_of_tables():
    defaults = {"scale": 2.0}
    held = collections.ChainMap({}, defaults)
    return lambda x: x * x * held["scale"], lambda: defaults.update(scale=5.0)


def of_a_proxy():
    table = {"scale": 2.0}
    held = types.MappingProxyType(table)
    return lambda x: x * x * held["scale"], lambda: table.update(scale=5.0)


def of_a_context_variable():
    held = contextvars.ContextVar("held", default=2.0)
    return lambda x: x * x * held.get(), lambda: held.set(5.0)


def of_thread_locals():
    held = threading.local()
    held.scale = 2.0
    return lambda x: x * x * held.scale, lambda: setattr(held, "scale", 5.0)


def of_ctypes():
    held = types.SimpleNamespace(scale=ctypes.c_double(2.0))
    return lambda x: x * x * held.scale.value, lambda: setattr(held.scale, "value", 5.0)


def of_an_optimizer():
    held = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    first = held.param_groups[0]
    return lambda x: x * x * held.param_groups[0]["lr"], lambda: first.update(lr=5.0)


class Scaled(torch.nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        self.scale = 2.0
        self.weight = torch.nn.Parameter(torch.tensor(factor), requires_grad=False)
        self.register_buffer("offset", torch.zeros(()))

    def forward(self, x):
        return x * x * (self.scale if self.training else 5.0) * self.weight + self.offset


IN_WHAT = {
    "list": lambda m: ([m], lambda held: held[0]),
    "dict": lambda m: ({"m": m}, lambda held: held["m"]),
    "tuple": lambda m: ((m,), lambda held: held[0]),
    "list in a dict": lambda m: ({"m": [m]}, lambda held: held["m"][0]),
    "list of an object": lambda m: (types.SimpleNamespace(m=[m]), lambda held: held.m[0]),
    "far away": lambda m: ([{"a": [{"b": [{"c": m}]}]}], lambda h: h[0]["a"][0]["b"][0]["c"]),
}
CHANGES = {
    "eval": lambda module: module.eval(),
    "number": lambda module: setattr(module, "scale", 5.0),
    "parameter": lambda module: setattr(
        module, "weight", torch.nn.Parameter(torch.tensor(2.5), requires_grad=False)
    ),
    "hook": lambda module: module.register_forward_hook(lambda m, args, out: out * 2.5),
}


def reads_a_global():
    return SCALE


def reads_a_global_by_another():
    return reads_a_global()


def changes_the_global():
    globals().update(SCALE=5.0)


class ReadsAGlobal:
    def by_method(self):
        return SCALE

    @property
    def by_property(self):
        return SCALE

    @staticmethod
    def by_static_method():
        return SCALE

    @classmethod
    def by_class_method(cls):
        return SCALE


def of_a_method_that_reads_a_global():
    held = ReadsAGlobal()
    return lambda x: x * x * held.by_method(), changes_the_global


def of_a_property_that_reads_a_global():
    held = ReadsAGlobal()
    return lambda x: x * x * held.by_property, changes_the_global


def of_a_static_method_that_reads_a_global():
    return lambda x: x * x * ReadsAGlobal.by_static_method(), changes_the_global


def of_a_class_method_that_reads_a_global():
    return lambda x: x * x * ReadsAGlobal.by_class_method(), changes_the_global


def of_helpers_in_a_table():
    held = {"helpers": [reads_a_global_by_another]}
    return lambda x: x * x * held["helpers"][0](), changes_the_global


def of_a_helper_of_a_module():
    class Scaled(torch.nn.Module):
        def forward(self, x):
            return x * x * reads_a_global()

    return Scaled(), changes_the_global


def of_defaults_in_a_table():
    def helper(scale=2.0):
        return scale

    held = {"helper": helper}
    return lambda x: x * x * held["helper"](), lambda: setattr(helper, "__defaults__", (5.0,))


def of_defaults_by_name():
    def helper(*, scale=2.0):
        return scale

    return lambda x: x * x * helper(), lambda: helper.__kwdefaults__.update(scale=5.0)


def of_code():
    def helper():
        return 2.0

    def other():
        return 5.0

    return lambda x: x * x * helper(), lambda: setattr(helper, "__code__", other.__code__)


def of_what_is_the_default_of_a_context_variable():
    table = {"scale": 2.0}
    held = contextvars.ContextVar("held", default=table)
    return lambda x: x * x * held.get()["scale"], lambda: table.update(scale=5.0)


def of_the_order_of_a_table():
    held = {"first": 2.0, "second": 5.0}
    return lambda x: x * x * next(iter(held.values())), lambda: held.update(first=held.pop("first"))


def of_a_scheduler():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=2.0)
    held = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 2.5 if step else 1.0)

    def change():
        optimizer.step()
        held.step()

    return lambda x: x * x * held.get_last_lr()[0], change


def of_another_module_in_a_list():
    held = [Scaled()]
    return lambda x: held[0](x), lambda: held.__setitem__(0, Scaled(2.5))


def beside_what_is_added():
    """Its own entries are no sign of anything, and all others are."""
    held = {"scale": 2.0}

    def function(x):
        held["calls"] = held.get("calls", 0) + 1
        return x * x * held["scale"]

    return function, lambda: held.update(scale=5.0)


def beside_an_attribute_that_is_new():
    class Scaled:
        def __init__(self):
            self.scale = 2.0

        def __call__(self, x):
            self.last = x.shape
            return x * x * self.scale

    held = Scaled()
    return held, lambda: setattr(held, "scale", 5.0)


def beside_what_is_appended():
    held, seen = types.SimpleNamespace(scale=2.0, shapes=[]), []

    def function(x):
        held.shapes.append(x.shape)
        seen.append(1)
        return x * x * held.scale

    return function, lambda: setattr(held, "scale", 5.0)


def beside_a_long_table_that_grows():
    held = dict.fromkeys(range(500), 0.0) | {"scale": 2.0}

    def function(x):
        held[len(held)] = 1.0
        return x * x * held["scale"]

    return function, lambda: held.update(scale=5.0)


WAYS = {
    "plain": lambda f: f(X) / X**2,
    "value": lambda f: jax.value_and_grad(lambda x: f(x).sum())(X)[0] / (X**2).sum(),
    "traced anew": lambda f: jax.jit(lambda x: f(x))(X) / X**2,
    "vmap": lambda f: jax.vmap(f)(BATCH) / BATCH**2,
    "grad": lambda f: jax.grad(lambda x: f(x).sum())(X) / (2 * X),
    "jvp": lambda f: jax.jvp(f, (X,), (X,))[1] / (2 * X**2),
    "hessian": lambda f: jnp.diag(jax.hessian(lambda x: f(x).sum())(X)) / 2,
    "vmap of grad": lambda f: jax.vmap(jax.grad(lambda x: f(x).sum()))(BATCH) / (2 * BATCH),
}
PLACES = [
    *(of_instance, of_class, of_method, of_list, of_dict, of_nested, of_module, of_global),
    *(of_bytearray, of_numpy, of_array, of_memory_view),
    *(of_one_among_thousands, of_long_dict),
    *(of_class_itself, of_slots, of_function, of_function_in_a_table, of_callable_in_a_table),
    *(of_replaced_method, in_a_module, in_a_module_that_is_closed_over),
    *(of_python_module, of_python_module_in_a_module, of_object_in_a_python_module),
    *(of_import_inside, of_name_imported_inside),
    *(of_a_tuple, of_a_tuple_in_a_tuple, of_a_chain_of_tables, of_a_proxy, of_a_context_variable),
    *(of_thread_locals, of_ctypes, of_an_optimizer, of_another_module_in_a_list),
    *(of_a_method_that_reads_a_global, of_a_property_that_reads_a_global, of_helpers_in_a_table),
    *(of_a_static_method_that_reads_a_global, of_a_class_method_that_reads_a_global, of_code),
    *(of_a_helper_of_a_module, of_defaults_in_a_table, of_defaults_by_name, of_a_scheduler),
    *(of_what_is_the_default_of_a_context_variable, of_the_order_of_a_table),
    of_python_module_beside_an_attribute_of_that_name,
    *(of_deque, of_a_subclass_of_dict, of_a_class_of_a_container),
]
# No graph can stand for these: they write to what they close over.
OWN_CHANGES = [
    *(beside_what_is_added, beside_an_attribute_that_is_new, beside_what_is_appended),
    beside_a_long_table_that_grows,
]


@pytest.mark.table(2)
@pytest.mark.parametrize("backend", ["eager", "graph", "xla"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_every_eager_way_sees_what_a_plain_call_sees(place, backend, monkeypatch):
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    monkeypatch.setattr(own_settings, "SCALE", 2.0)
    monkeypatch.setattr(Settings, "scale", 2.0)
    function, change = place()
    wrapped = jax_callable(function, backend=backend)
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 2.0), label=name)
    change()
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 5.0), label=name)


@pytest.mark.parametrize("backend", ["eager", "graph", "xla"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("where", IN_WHAT)
def test_modules_in_containers(where, change, backend):
    module = torch.nn.Sequential(Scaled())
    held, take = IN_WHAT[where](module)
    wrapped = jax_callable(lambda x: take(held)(x), backend=backend)
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 2.0), label=name)
    CHANGES[change](module[0])
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 5.0), label=name)


def test_modules_that_came_into_a_container_later():
    held = [Scaled()]
    wrapped = jax_callable(lambda x: held[0](x))
    for way in WAYS.values():
        way(wrapped)
    held[0] = Scaled()
    for way in WAYS.values():
        way(wrapped)
    held[0].eval()
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 5.0), label=name)


@pytest.mark.parametrize("place", OWN_CHANGES, ids=lambda place: place.__name__)
def test_what_others_change_is_seen_beside_what_it_adds(place):
    function, change = place()
    wrapped = jax_callable(function)
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 2.0), label=name)
    change()
    for name, way in WAYS.items():
        assert_close(way(wrapped), jnp.full_like(way(wrapped), 5.0), label=name)


def counted():
    held = {"calls": 0}

    def function(x):
        held["calls"] += 1
        return x * held["calls"]

    return function, held


@pytest.mark.filterwarnings("ignore:.*calls torch once for each element")
def test_derivatives_and_batches_count_as_calls_do():
    """What a function reads and changes itself is no constant of a graph."""
    function, held = counted()
    wrapped = jax_callable(function)
    ways = [
        lambda: wrapped(X) / X,
        lambda: jax.vmap(wrapped)(X[None])[0] / X,
        lambda: jax.jvp(wrapped, (X,), (X,))[1] / X,
        lambda: jax.grad(lambda x: wrapped(x).sum())(X),
    ]
    for count, way in enumerate(ways * 2, start=1):
        assert_close(way(), jnp.full(3, float(count)))
        assert held["calls"] == count


@pytest.mark.parametrize("backend", ["graph", "compile", "xla"])
def test_no_graph_stands_for_a_function_that_reads_what_it_changes(backend):
    function, held = counted()
    wrapped = jax_callable(function, backend=backend)
    with pytest.raises(PlanningError, match="changes a dict that it refers to"):
        wrapped(X)
    assert held["calls"] == 0


@pytest.mark.parametrize("backend", ["graph", "compile", "xla"])
def test_a_graph_is_planned_once_for_all_that_is_the_same(backend):
    traces = []
    held = types.SimpleNamespace(scale=2.0)

    def scaled(x):
        traces.append(1)
        return x * held.scale

    wrapped = jax_callable(scaled, backend=backend)
    for scale in (2.0, 5.0, 3.0):
        held.scale = scale
        assert_close(wrapped(X), X * scale)
        assert_close(jax.jit(lambda x: wrapped(x))(X), X * scale)
    before = len(traces)
    for scale in (5.0, 2.0, 3.0, 2.0):
        held.scale = scale
        assert_close(wrapped(X), X * scale)
    assert len(traces) == before


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


@pytest.mark.parametrize("length", [3, 200], ids=["short", "long"])
@pytest.mark.parametrize("kind", [list, dict])
def test_what_the_function_changes_in_a_table_is_its_own_entry(kind, length):
    table = [0] * length if kind is list else dict.fromkeys(range(length), 0)
    values = HeldValues()
    # From one value it could be what is set when it is missing; from two it is a count.
    for _ in range(2):
        before = values.picture([table])
        table[1] += 1
        values.note_changes(before, values.picture([table]))
    before = values.picture([table])
    table[1] += 1
    assert values.same(before, values.picture([table]))
    table[2] = -0.0
    assert not values.same(before, values.picture([table]))
    before = values.picture([table])
    table[2] = 0.0
    assert not values.same(before, values.picture([table]))
    before = values.picture([table])
    table[2] = False
    assert not values.same(before, values.picture([table]))


def test_more_than_can_be_looked_at_is_told_once():
    held = [types.SimpleNamespace(scale=2.0) for _ in range(20_000)]
    g = jax_callable(lambda x: x * held[10].scale)
    jax.vmap(g)(BATCH)  # a warning would be an error
    with pytest.warns(BridgeWarning, match="hold more than 10,000 values.*a SimpleNamespace"):
        jax.vmap(g)(BATCH)
    jax.vmap(g)(BATCH)


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
