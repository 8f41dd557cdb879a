"""Eager derivatives and batches read what plain calls read, however code gets at it."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import ctypes
import datetime
import decimal
import enum
import functools
import gc
import gzip
import importlib
import io
import itertools
import mmap
import multiprocessing
import operator
import os
import pathlib
import queue
import random
import selectors
import string
import sys
import tempfile
import threading
import types
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import BridgeWarning, jax_callable
from jaxtorch_bridge.torchside.closure.closure_state import ClosureState

# A module that somebody has typed in, under a name by which it can be imported.
own_settings = types.ModuleType("own_settings_by_name")
sys.modules["own_settings_by_name"] = own_settings

X = jnp.array([1.0, 2.0, -0.5])
BATCH = jnp.stack([X, 2 * X])
SCALE = 2.0
WAYS = {
    "plain": lambda f: f(X) / X**2,
    "vmap": lambda f: jax.vmap(f)(BATCH) / BATCH**2,
    "jvp": lambda f: jax.jvp(f, (X,), (X,))[1] / (2 * X**2),
}


def every_way_gives(wrapped, wanted):
    for name, way in WAYS.items():
        found = way(wrapped)
        assert_close(found, jnp.full_like(found, wanted), label=name)


class Held:
    def __init__(self, scale=2.0):
        self.scale = scale

    def get(self):
        return self.scale


def times(read):
    """A torch function that multiplies by what it reads, its argument's square."""
    return lambda x: x * x * read()


def set_to(held, key):
    return lambda: held.__setitem__(key, 5.0)


def set_scale(held):
    return lambda: setattr(held, "scale", 5.0)


# -- Python's and numpy's containers


def in_an_array_of_objects():
    held = np.array([2.0, None], dtype=object)
    return lambda x: x * x * held[0], set_to(held, 0)


def in_a_table_in_an_array_of_objects():
    held = np.array([{"scale": 2.0}, None], dtype=object)
    return lambda x: x * x * held[0]["scale"], set_to(held[0], "scale")


def in_a_field_of_objects():
    held = np.array([(2.0,)], dtype=[("scale", object)])
    return lambda x: x * x * held["scale"][0], set_to(held["scale"], 0)


def in_a_view_of_a_table():
    held = {"scale": 2.0}
    values = held.values()
    return lambda x: x * x * next(iter(values)), set_to(held, "scale")


def in_items_in_a_list():
    held = {"scale": 2.0}
    views = [held.items()]
    return lambda x: x * x * next(iter(views[0]))[1], set_to(held, "scale")


def in_a_key_of_a_table():
    held = Held()
    table = {held: 0}
    return lambda x: x * x * next(iter(table)).scale, set_scale(held)


def in_an_object_in_a_set():
    held = Held()
    table = {held}
    return lambda x: x * x * next(iter(table)).scale, set_scale(held)


def under_a_generator():
    held = [2.0]

    def endless():
        while True:
            yield held[0]

    values = endless()
    return lambda x: x * x * next(values), set_to(held, 0)


def under_a_cycle():
    held = [[2.0]]
    values = itertools.cycle(held)
    return lambda x: x * x * next(values)[0], set_to(held[0], 0)


# -- Classes


def in_a_metaclass():
    class Meta(type):
        scale = 2.0

    class Made(metaclass=Meta):
        pass

    return lambda x: x * x * Made.scale, set_scale(Meta)


def in_a_property_of_a_metaclass():
    held = [2.0]

    class Meta(type):
        @property
        def scale(cls):
            return held[0]

    class Made(metaclass=Meta):
        pass

    return lambda x: x * x * Made.scale, set_to(held, 0)


def in_an_item_of_a_class():
    held = {"scale": 2.0}

    class Meta(type):
        def __getitem__(cls, key):
            return held[key]

    class Made(metaclass=Meta):
        pass

    return lambda x: x * x * Made["scale"], set_to(held, "scale")


def in_a_descriptor():
    class Descriptor:
        scale = 2.0

        def __get__(self, instance, owner):
            return self.scale

    descriptor = Descriptor()

    class Made:
        scale = descriptor

    made = Made()
    return lambda x: x * x * made.scale, set_scale(descriptor)


def in_an_object_that_a_class_has():
    class Made:
        settings = types.SimpleNamespace(scale=2.0)

    made = Made()
    return lambda x: x * x * made.settings.scale, set_scale(Made.settings)


def in_a_class_in_a_list():
    class Made:
        scale = 2.0

    table = [Made]
    return lambda x: x * x * table[0].scale, set_scale(Made)


def in_what_a_class_in_an_object_makes():
    class Made:
        scale = 2.0

    held = types.SimpleNamespace(kind=Made)
    return lambda x: x * x * held.kind().scale, set_scale(Made)


def behind_a_cached_property():
    held = [2.0]

    class Made:
        @functools.cached_property
        def scale(self):
            return held[0]

    made = Made()

    def change():
        held[0] = 5.0
        vars(made).pop("scale", None)

    return lambda x: x * x * made.scale, change


# -- Functions


def in_a_partial_in_a_table():
    held = [2.0]
    table = {"read": functools.partial(operator.getitem, held)}
    return lambda x: x * x * table["read"](0), set_to(held, 0)


def in_a_method_of_a_list():
    held = [2.0]
    read = held.__getitem__
    return lambda x: x * x * read(0), set_to(held, 0)


def in_a_method_of_a_table_in_a_list():
    held = {"scale": 2.0}
    table = [held.get]
    return lambda x: x * x * table[0]("scale"), set_to(held, "scale")


def in_a_cell():
    scale = 2.0
    cell = (lambda: scale).__closure__[0]

    def change():
        cell.cell_contents = 5.0

    return lambda x: x * x * cell.cell_contents, change


def in_a_cached_helper_in_a_table():
    held = [2.0]

    @functools.lru_cache
    def read():
        return held[0]

    table = {"read": read}

    def change():
        held[0] = 5.0
        read.cache_clear()

    return lambda x: x * x * table["read"](), change


# -- Tensors, memory, weak references


def in_an_attribute_of_a_tensor():
    tensor = torch.ones(3)
    tensor.scale = 2.0
    return lambda x: x * x * tensor.scale, set_scale(tensor)


def behind_a_pointer():
    number = ctypes.c_double(2.0)
    pointer = ctypes.pointer(number)
    return lambda x: x * x * pointer.contents.value, lambda: setattr(number, "value", 5.0)


def behind_a_pointer_to_an_array():
    held = (ctypes.c_double * 2)(2.0, 1.0)
    pointer = ctypes.cast(held, ctypes.POINTER(ctypes.c_double))
    return lambda x: x * x * pointer[0], set_to(held, 0)


def behind_a_pointer_of_numpy():
    held = np.array([2.0])
    pointer = held.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    return lambda x: x * x * pointer[0], set_to(held, 0)


def behind_a_pointer_in_a_structure():
    class Structure(ctypes.Structure):
        _fields_ = (("pointer", ctypes.POINTER(ctypes.c_double)),)

    number = ctypes.c_double(2.0)
    held = Structure(ctypes.pointer(number))
    return lambda x: x * x * held.pointer[0], lambda: setattr(number, "value", 5.0)


def behind_a_weak_reference():
    held = Held()
    reference = weakref.ref(held)
    return lambda x: x * x * reference().scale, set_scale(held)


def behind_a_weak_proxy():
    held = Held()
    proxy = weakref.proxy(held)
    return lambda x: x * x * proxy.scale, set_scale(held)


def behind_a_weak_method():
    held = Held()
    reference = weakref.WeakMethod(held.get)
    return lambda x: x * x * reference()(), set_scale(held)


def in_a_table_of_weak_values():
    held = Held()
    table = weakref.WeakValueDictionary(scale=held)
    return lambda x: x * x * table["scale"].scale, set_scale(held)


def in_a_weak_set():
    held = Held()
    table = weakref.WeakSet([held])
    return lambda x: x * x * next(iter(table)).scale, set_scale(held)


def further_behind_a_weak_reference():
    held = Held({"scale": [2.0]})
    held.itself = weakref.ref(held)
    reference = weakref.ref(held)

    def change():
        held.scale["scale"][0] = 5.0

    return lambda x: x * x * reference().scale["scale"][0], change


# -- The environment, and names that are not in the code


def in_the_environment():
    return (
        lambda x: x * x * float(os.environ["OWN_SCALE"]),
        lambda: os.environ.update(OWN_SCALE="5"),
    )


def read_environment():
    return float(os.getenv("OWN_SCALE"))


def in_the_environment_by_a_helper_in_a_table():
    table = [read_environment]
    return lambda x: x * x * table[0](), lambda: os.environ.update(OWN_SCALE="5")


def of_a_module_by_getattr():
    name = "SCALE"
    return lambda x: x * x * getattr(own_settings, name), set_scale_of_module


def of_a_module_by_vars():
    name = "SCALE"
    return lambda x: x * x * vars(own_settings)[name], set_scale_of_module


def of_a_module_by_attrgetter():
    read = operator.attrgetter("SCALE")
    return lambda x: x * x * read(own_settings), set_scale_of_module


def of_an_imported_module():
    return (
        lambda x: x * x * importlib.import_module("own_settings_by_name").SCALE,
        set_scale_of_module,
    )


def of_a_module_in_the_table_of_modules():
    return lambda x: x * x * sys.modules["own_settings_by_name"].SCALE, set_scale_of_module


def of_a_module_in_a_list():
    table = [own_settings]
    return lambda x: x * x * table[0].SCALE, set_scale_of_module


def in_a_table_of_a_module_in_an_object():
    held = types.SimpleNamespace(settings=own_settings)
    return lambda x: x * x * held.settings.TABLE["scale"], lambda: own_settings.TABLE.update(
        scale=5.0
    )


def set_scale_of_module():
    own_settings.SCALE = 5.0


def in_globals():
    return lambda x: x * x * globals()["SCALE"], lambda: globals().update(SCALE=5.0)


def in_what_is_evaluated():
    return lambda x: x * x * eval("SCALE"), lambda: globals().update(SCALE=5.0)


def no_grad_helper(held):
    @torch.no_grad()
    def read():
        return held["scale"]

    return read


def under_a_decorator_of_torchs():
    held = {"scale": 2.0}
    table = [no_grad_helper(held)]
    return lambda x: x * x * table[0](), set_to(held, "scale")


def in_a_decorated_method():
    held = {"scale": 2.0}

    class Model:
        @torch.no_grad()
        def get(self):
            return held["scale"]

    model = Model()
    return lambda x: x * x * model.get(), set_to(held, "scale")


def in_a_registry_of_singledispatch():
    @functools.singledispatch
    def read(x):
        return 2.0

    table = [read]

    def change():
        read.register(torch.Tensor, lambda x: 5.0)

    return lambda x: x * x * table[0](x), change


def in_what_another_jax_callable_reads():
    held = {"scale": 2.0}
    table = [jax_callable(lambda x: x * held["scale"])]
    return lambda x: x * table[0](x), set_to(held, "scale")


def in_what_is_set_when_it_is_missing():
    held = types.SimpleNamespace(scale=None)

    def function(x):
        if held.scale is None:
            held.scale = 2.0
        return x * x * held.scale

    return function, set_scale(held)


def in_a_cache_that_it_fills():
    cache = {}

    def function(x):
        return x * x * cache.setdefault("scale", 2.0)

    return function, set_to(cache, "scale")


def under_a_name_of_pythons_own():
    return lambda x: x * x * input, lambda: globals().update(input=5.0)


def beside_a_variable_of_that_name():
    def function(x):
        def helper():
            SCALE = 1.0

            def change():
                nonlocal SCALE
                SCALE = 2.0

            change()
            return SCALE

        return x * x * scale_times(helper()) / 2

    return function, lambda: globals().update(SCALE=5.0)


def scale_times(x):
    return SCALE * x


def in_a_distribution():
    held = torch.distributions.Normal(torch.tensor(2.0), torch.tensor(1.0))
    return lambda x: x * x * held.mean, lambda: setattr(held, "loc", torch.tensor(5.0))


def in_a_vectorised_function():
    held = [2.0]
    read = np.vectorize(lambda x: held[0])
    return lambda x: x * x * float(read(1.0)), set_to(held, 0)


def in_a_factory_of_defaults():
    held = [2.0]
    table = collections.defaultdict(lambda: held[0])

    def change():
        held[0] = 5.0
        table.clear()

    return lambda x: x * x * table["scale"], change


def in_a_mask():
    held = np.ma.array([2.0, 5.0], mask=[False, True])

    def change():
        held.mask = [True, False]

    return lambda x: x * x * float(held.compressed()[0]), change


def in_an_enumeration_that_reads_a_table():
    table = {"scale": 2.0}

    class Kind(enum.IntEnum):
        ONE = 1

        @property
        def scale(self):
            return table["scale"]

    held = types.SimpleNamespace(kind=Kind.ONE)
    return lambda x: x * x * held.kind.scale, set_to(table, "scale")


def in_an_object_that_is_set_when_it_is_missing():
    held = Held()

    def function(x):
        if not hasattr(held, "inner"):
            held.inner = Held()
        return x * x * held.inner.scale

    return function, lambda: setattr(held, "inner", Held(5.0))


# -- settings of the process


def in_an_argument_of_the_command():
    return lambda x: x * x * float(sys.argv[-1]), lambda: sys.argv.append("5")


def of_a_module_of_pythons():
    def function(x):
        import string

        return x * x * string.own_scale

    return function, lambda: setattr(string, "own_scale", 5.0)


def in_an_object_of_a_module_of_pythons():
    return lambda x: x * x * string.own_object.scale, set_scale(string.own_object)


def in_a_table_of_a_module_of_pythons():
    table = string.own_table
    return lambda x: x * x * string.own_table["scale"], set_to(table, "scale")


def in_how_decimals_are_rounded():
    held = decimal.Decimal("2.4")

    def change():
        decimal.getcontext().prec = 3

    return lambda x: x * x * (5.0 if held * 1 == held else 2.0), change


def in_what_numpy_does_about_errors():
    def change():
        np.seterr(divide="raise")

    return lambda x: x * x * (5.0 if np.geterr()["divide"] == "raise" else 2.0), change


PLACES = [
    *(in_an_array_of_objects, in_a_table_in_an_array_of_objects, in_a_field_of_objects),
    *(in_a_view_of_a_table, in_items_in_a_list, in_a_key_of_a_table, in_an_object_in_a_set),
    *(under_a_generator, under_a_cycle, in_a_metaclass, in_a_property_of_a_metaclass),
    *(in_an_item_of_a_class, in_a_descriptor, in_an_object_that_a_class_has),
    *(in_a_class_in_a_list, in_what_a_class_in_an_object_makes, behind_a_cached_property),
    *(in_a_partial_in_a_table, in_a_method_of_a_list, in_a_method_of_a_table_in_a_list),
    *(in_a_cell, in_a_cached_helper_in_a_table, in_an_attribute_of_a_tensor, behind_a_pointer),
    *(behind_a_pointer_to_an_array, behind_a_pointer_of_numpy, behind_a_pointer_in_a_structure),
    *(behind_a_weak_reference, behind_a_weak_proxy, behind_a_weak_method),
    *(in_a_table_of_weak_values, in_a_weak_set, further_behind_a_weak_reference),
    *(in_the_environment, in_the_environment_by_a_helper_in_a_table, of_a_module_by_getattr),
    *(of_a_module_by_vars, of_a_module_by_attrgetter, of_an_imported_module),
    *(of_a_module_in_the_table_of_modules, of_a_module_in_a_list),
    *(in_a_table_of_a_module_in_an_object, in_globals, in_what_is_evaluated),
    *(under_a_decorator_of_torchs, in_a_decorated_method, in_a_registry_of_singledispatch),
    *(in_what_another_jax_callable_reads, in_what_is_set_when_it_is_missing),
    *(in_a_cache_that_it_fills, under_a_name_of_pythons_own, beside_a_variable_of_that_name),
    *(in_a_distribution, in_a_vectorised_function, in_a_factory_of_defaults, in_a_mask),
    *(in_an_enumeration_that_reads_a_table, in_an_object_that_is_set_when_it_is_missing),
    *(in_an_argument_of_the_command, of_a_module_of_pythons, in_how_decimals_are_rounded),
    *(in_what_numpy_does_about_errors, in_an_object_of_a_module_of_pythons),
    in_a_table_of_a_module_of_pythons,
]


@pytest.fixture(autouse=True)
def settings_of_the_process(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "2"])
    monkeypatch.setattr(string, "own_scale", 2.0, raising=False)
    monkeypatch.setattr(string, "own_object", Held(), raising=False)
    # What else such a table holds may be anything.
    table = {"scale": 2.0, "other": Held()}
    monkeypatch.setattr(string, "own_table", table, raising=False)
    with np.errstate(divide="ignore"), decimal.localcontext() as context:
        context.prec = 1
        yield


@pytest.mark.table(2)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_every_eager_way_sees_what_a_plain_call_sees(place, monkeypatch):
    monkeypatch.setitem(globals(), "SCALE", 2.0)
    monkeypatch.setitem(globals(), "input", 2.0)
    monkeypatch.setenv("OWN_SCALE", "2")
    own_settings.SCALE, own_settings.TABLE = 2.0, {"scale": 2.0}
    function, change = place()
    wrapped = jax_callable(function)
    every_way_gives(wrapped, 2.0)
    change()
    every_way_gives(wrapped, 5.0)


# An iterator is another one after each step.
STILL = [place for place in PLACES if place is not under_a_cycle]
# Without a trial run nobody knows that the function itself does it.
STILL = [one for one in STILL if "missing" not in one.__name__ and "fills" not in one.__name__]


@pytest.mark.parametrize("place", STILL, ids=lambda place: place.__name__)
def test_what_has_not_changed_is_the_same(place, monkeypatch):
    """Or each call would be planned anew."""
    monkeypatch.setenv("OWN_SCALE", "2")
    monkeypatch.setitem(globals(), "input", 2.0)
    own_settings.SCALE, own_settings.TABLE = 2.0, {"scale": 2.0}
    function, _change = place()
    state = ClosureState(function)
    assert state.held_number() == state.held_number()
    for _ in range(2):
        before = state.held()
        function(torch.ones(3))
    assert state.holds_same(before), set(state.held().items()) ^ set(before.items())


def test_what_weak_references_lead_to_is_let_go_of():
    held = Held()
    reference = weakref.ref(held)

    def function(x):
        found = reference()
        return x * x * (found.scale if found is not None else 5.0)

    wrapped = jax_callable(function)
    every_way_gives(wrapped, 2.0)
    del held
    gc.collect()
    assert reference() is None
    every_way_gives(wrapped, 5.0)


def of_a_file(folder):
    path = folder / "scale"
    path.write_text("2")

    def read():
        with open(path) as file:
            return float(file.read())

    return read


def of_a_text_in_memory(folder):
    text = io.StringIO("2")
    return lambda: float(text.getvalue())


def of_mapped_memory(folder):
    memory = mmap.mmap(-1, 16)
    memory[0] = 2
    return lambda: float(memory[0])


def of_a_file_by_a_method(folder):
    class Settings:
        def __init__(self):
            self.read = [self]

        def scale(self):
            return self._scale()

        def _scale(self):
            return of_a_file(folder)()

    held = Settings()
    return lambda: held.read[0].scale()


def of_a_file_by_a_property(folder):
    read = of_a_file(folder)

    class Settings:
        @property
        def scale(self):
            return read()

    held = Settings()
    return lambda: held.scale


def of_a_file_by_a_helper_in_a_table(folder):
    table = {"read": of_a_file(folder)}
    return lambda: table["read"]()


def of_a_file_by_numpy(folder):
    np.save(folder / "scale.npy", 2.0)
    return lambda: float(np.load(folder / "scale.npy"))


def of_a_file_by_numpy_in_a_table(folder):
    np.save(folder / "scale.npy", 2.0)
    table = {"read": np.load}
    return lambda: float(table["read"](folder / "scale.npy"))


def of_a_packed_file(folder):
    with gzip.open(folder / "scale.gz", "wt") as file:
        file.write("2")

    def read():
        with gzip.open(folder / "scale.gz", "rt") as file:
            return float(file.read())

    return read


def of_a_path(folder):
    (folder / "scale").write_text("")
    return lambda: 2.0 if pathlib.Path(folder, "scale").exists() else 5.0


def of_the_clock(_folder):
    def read():
        from time import time

        return 2.0 if time() else 5.0

    return read


def of_the_date(_folder):
    return lambda: 2.0 if datetime.datetime.now() else 5.0


def of_random_bytes(_folder):
    return lambda: 2.0 if os.urandom(8) else 5.0


def of_random_numbers_of_the_system(_folder):
    draw = random.SystemRandom()
    return lambda: 2.0 if draw.random() <= 1 else 5.0


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (of_a_file, "whose code has `open`"),
        (of_a_file_by_a_method, "whose code has `open`"),
        (of_a_file_by_a_property, "whose code has `open`"),
        (of_a_file_by_a_helper_in_a_table, "whose code has `open`"),
        (of_a_file_by_numpy, "whose code has `load`"),
        (of_a_file_by_numpy_in_a_table, "`load`"),
        (of_a_packed_file, "whose code has `open`"),
        (of_a_path, "whose code has `exists`"),
        (of_the_clock, "whose code has `time`"),
        (of_the_date, "whose code has `now`"),
        (of_random_bytes, "whose code has `urandom`"),
        (of_random_numbers_of_the_system, "the operating system's random numbers"),
        (of_a_text_in_memory, "a `StringIO`"),
        (of_mapped_memory, "a `mmap.mmap`"),
    ],
)
def test_what_cannot_be_looked_at_is_said_at_the_call(make, what, tmp_path):
    wrapped = jax_callable(times(make(tmp_path)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped(X)
        jax.grad(lambda x: wrapped(x).sum())(X)
        jax.vmap(wrapped)(BATCH)
    # Now something is kept.
    with pytest.warns(BridgeWarning, match=f"{what}.*Pass what changes as an argument"):
        jax.vmap(wrapped)(BATCH)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once
        jax.vmap(wrapped)(BATCH)


def test_methods_that_are_not_called_are_not_told_of(tmp_path):
    class Model:
        scale = 2.0

        def save(self, path):
            with open(path, "w") as file:
                file.write(str(self.scale))

        def run(self, x):
            return x * x * self.scale

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped = jax_callable(Model().run)
        for _ in range(3):
            jax.vmap(wrapped)(BATCH)


def ended_thread():
    thread = threading.Thread(target=dict)
    thread.start()
    thread.join()
    return thread


def pool_that_has_run():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(dict).result()
    return pool


# What waits, locks and runs other things; and what has no state to look at.
TOOLS = {
    "thread": ended_thread,
    "pool": pool_that_has_run,
    "new pool": lambda: concurrent.futures.ThreadPoolExecutor(1),
    "timer": lambda: threading.Timer(1.0, dict),
    "condition": threading.Condition,
    "barrier": lambda: threading.Barrier(1),
    "lock of processes": multiprocessing.Lock,
    "queue": queue.Queue,
    "simple queue": queue.SimpleQueue,
    "event loop": asyncio.new_event_loop,
    "selector": selectors.DefaultSelector,
    "temporary folder": tempfile.TemporaryDirectory,
}


@pytest.mark.parametrize("tool", TOOLS)
def test_what_waits_and_runs_is_not_told_of(tool):
    held = TOOLS[tool]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped = jax_callable(times(lambda: 2.0 if held is not None else 0.0))
        for _ in range(3):
            every_way_gives(wrapped, 2.0)
    for close in ("shutdown", "cleanup", "close"):
        getattr(held, close, dict)()


class Node:
    def __init__(self, depth, parent=None):
        self.parent = None if parent is None else weakref.ref(parent)
        self.scale = 2.0
        self.children = [Node(depth - 1, self) for _ in range(2)] if depth else []


def test_trees_that_refer_to_their_parents_are_walked_once():
    tree = Node(8)
    state = ClosureState(lambda x: x * tree.scale)
    # 511 nodes of some ten places; from each of them once more it would be without end.
    before = state.held()
    assert len(before) < 20_000
    tree.children[1].children[0].scale = 5.0
    assert not state.holds_same(before)


@pytest.mark.parametrize("number", [2**20000, -(2**20000)], ids=["great", "small"])
def test_numbers_without_a_decimal_text(number):
    held = {"long": number}
    wrapped = jax_callable(lambda x: x * (held["long"] % 7))
    for _ in range(2):
        jax.vmap(wrapped)(BATCH)


def test_classes_that_have_no_hash():
    class Unhashed(type):
        def __hash__(cls):
            raise RuntimeError("none")

    class Settings(metaclass=Unhashed):
        scale = 2.0

    held = Settings()
    wrapped = jax_callable(lambda x: x * x * held.scale)
    every_way_gives(wrapped, 2.0)
    Settings.scale = 5.0
    every_way_gives(wrapped, 5.0)


def test_texts_whose_class_cannot_be_shown():
    class Text(str):
        __slots__ = ()

        def __repr__(self):
            raise RuntimeError("not to be shown")

    held = {"text": Text("two")}
    wrapped = jax_callable(lambda x: x * len(held["text"]))
    for _ in range(2):
        assert_close(jax.vmap(wrapped)(BATCH), BATCH * 3)
    held["text"] = Text("five")
    assert_close(jax.vmap(wrapped)(BATCH), BATCH * 4)


def test_a_number_of_numpys_that_is_made_again_is_the_same_number():
    """Or each call of a loop that computes one would be planned anew."""
    scale = np.float64(2.0)
    state = ClosureState(lambda x: x * scale)
    before = state.key()
    scale = np.float64("2.0")
    assert state.key() == before
    scale = np.float64(3.0)
    assert state.key() != before
