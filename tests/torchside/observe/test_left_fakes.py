"""Planning leaves no trace: no fake tensor stays in a cache, wherever it is."""

import collections
import contextvars
import dataclasses
import functools
import gc
import sys
import threading
import types
import weakref

import jax
import jax.numpy as jnp
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from comparing import assert_close
from jaxtorch_bridge import from_module, jax_callable

X = jnp.arange(3.0)


class Box:
    """An object that holds others."""

    def __init__(self, **held):
        vars(self).update(held)


def deep(leaf, steps=6):
    for _ in range(steps):
        leaf = Box(inner=leaf, others=[1, "a"])
    return leaf


def inmost(box):
    while hasattr(box, "inner"):
        box = box.inner
    return box


def table_of(x):
    return torch.arange(len(x)) * 2.0


def keeps(held, get, put):
    """Make functions that keep a tensor in what ``held`` makes, and look for it there first."""

    def make():
        box = deep(held())

        def f(x):
            own = inmost(box)
            if get(own) is None:
                put(own, table_of(x))
            return x + get(own)

        return f

    return make


def in_attribute(held, put=setattr):
    return keeps(
        held,
        lambda own: getattr(own, "memo", None),
        lambda own, table: put(own, "memo", table),
    )


def in_dict(kind, key="table"):
    return keeps(
        lambda: Box(cache=kind()),
        lambda own: own.cache.get(key),
        lambda own, table: own.cache.update({key: table}),
    )


class WithDefault:
    memo = None


class WithSlots:
    __slots__ = ("memo",)


@dataclasses.dataclass(frozen=True)
class Frozen:
    memo: object = None


class Key:
    pass


# These make it themselves.
class Lazy:
    @functools.cached_property
    def table(self):
        return torch.arange(3) * 2.0


def in_cached_property():
    box = deep(Lazy())
    return lambda x: x + inmost(box).table


class Helper:
    def __init__(self):
        memo = None

        def table(x):
            nonlocal memo
            if memo is None:
                memo = table_of(x)
            return memo

        self.table = table
        self.lru = functools.lru_cache(lambda size: torch.arange(size) * 2.0)


def in_cell():
    box = deep(Helper())
    return lambda x: x + inmost(box).table(x)


def in_lru_cache():
    box = deep(Helper())
    return lambda x: x + inmost(box).lru(len(x))


CODE = """
import functools, torch
TABLES, LAST = {}, None

@functools.cache
def cached(size):
    return torch.arange(size) * 2.0

def looked_up(size):
    if size not in TABLES:
        TABLES[size] = torch.arange(size) * 2.0
    return TABLES[size]

def last(size):
    global LAST
    if LAST is None:
        LAST = torch.arange(size) * 2.0
    return LAST

class Rotary:
    tables = {}

    def dict(self, size):
        return looked_up(size)

    def cache(self, size):
        return cached(size)

    def name(self, size):
        return last(size)

    def of_class(self, size):
        return type(self).tables.setdefault(size, torch.arange(size) * 2.0)
"""


def in_module(how):
    module = types.ModuleType("a_library_with_caches")
    sys.modules[module.__name__] = module
    exec(compile(CODE, "a_library_with_caches.py", "exec"), vars(module))
    # By a computed name: nobody can see which function is called.
    box, name = deep(module.Rotary()), "".join(how)
    return lambda x: x + getattr(inmost(box), name)(len(x))


KEEPERS = {
    "attribute": in_attribute(lambda: Box(memo=None)),
    "missing attribute": in_attribute(Box),
    "class default": in_attribute(WithDefault),
    "slots": in_attribute(WithSlots),
    "frozen dataclass": in_attribute(Frozen, object.__setattr__),
    "thread local": in_attribute(threading.local),
    "dict": in_dict(dict),
    "ordered dict": in_dict(collections.OrderedDict),
    "default dict": in_dict(lambda: collections.defaultdict(list)),
    "user dict": in_dict(collections.UserDict),
    "weak dict": in_dict(weakref.WeakKeyDictionary, Key()),
    "list": keeps(
        lambda: Box(seen=[]),
        lambda own: own.seen[0] if own.seen else None,
        lambda own, table: own.seen.append(table),
    ),
    "tuples": keeps(
        lambda: Box(cache={}),
        lambda own: own.cache["a"][1][0] / 2 + own.cache["a"][2]["half"] if own.cache else None,
        lambda own, table: own.cache.update(a=(1, [table], {"half": table / 2})),
    ),
    "new object": keeps(
        lambda: Box(made=None),
        lambda own: own.made and own.made.cache["table"],
        lambda own, table: setattr(own, "made", Box(cache={"table": table})),
    ),
    "context variable": keeps(
        lambda: Box(variable=contextvars.ContextVar("memo", default=None)),
        lambda own: own.variable.get(),
        lambda own, table: own.variable.set(table),
    ),
    "cached property": in_cached_property,
    "cell": in_cell,
    "lru_cache": in_lru_cache,
    "dict of a module": lambda: in_module("dict"),
    "cache of a module": lambda: in_module("cache"),
    "name of a module": lambda: in_module("name"),
    "class of a module": lambda: in_module("of_class"),
}


@pytest.fixture(scope="module", autouse=True)
def _only_what_is_made_here_is_looked_at():
    """Going through all objects of all tests before, several times a test, takes minutes."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def fakes():
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is FakeTensor]


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.errors.BridgeWarning")
@pytest.mark.parametrize("how", ["eager", "jit", "grad", "plan"])
@pytest.mark.parametrize("make", KEEPERS.values(), ids=KEEPERS.keys())
def test_no_fake_is_left(make, how):
    before = {id(one) for one in fakes()}
    f = make()
    g = jax_callable(f)
    want = X + 2 * jnp.arange(3)
    if how == "grad":
        assert_close(jax.grad(lambda x: (g(x) ** 2).sum())(X), 2 * want)
    elif how == "plan":
        g.plan(jax.ShapeDtypeStruct(X.shape, X.dtype))
    else:
        assert_close((jax.jit(g) if how == "jit" else g)(X), want)
    assert [one for one in fakes() if id(one) not in before] == []
    # Torch's own code finds what it would have made itself.
    assert_close(f(torch.arange(3.0)), want)
    assert_close(g(X), want)
    assert_close(jax.vmap(g)(jnp.stack([X, X]))[1], want)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.helper = deep(Box(cache={}))

    def forward(self, x):
        cache = inmost(self.helper).cache
        if len(x) not in cache:
            cache[len(x)] = table_of(x)
        return x * self.weight + cache[len(x)]


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.errors.BridgeWarning")
def test_of_modules():
    before = {id(one) for one in fakes()}
    layer, want = Layer(), X + 2 * jnp.arange(3)
    g = jax_callable(layer)
    assert_close(jax.jit(g)(X), want)
    taken = from_module(Layer())
    assert_close(jax.jit(taken.apply)(taken.params, X), want)
    assert [one for one in fakes() if id(one) not in before] == []
    assert_close(layer(torch.arange(3.0)).detach(), want)


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.errors.BridgeWarning")
def test_what_was_there_before_stays():
    old = torch.ones(3)
    box = deep(Box(last=old, cache={"a": old}, seen=[old]))

    def f(x):
        own = inmost(box)
        own.last = x * 2
        own.cache["a"] = x * 3
        own.cache["b"] = x * 4
        own.seen[0] = x * 5
        return x + 1

    jax_callable(f).plan(jax.ShapeDtypeStruct(X.shape, X.dtype))
    own = inmost(box)
    assert own.last is old
    assert own.cache == {"a": old}
    assert own.seen == [old]


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.errors.BridgeWarning")
def test_of_an_evaluation_that_fails_half_way():
    box = deep(Box(cache={}))

    def f(x):
        cache = inmost(box).cache
        if "table" not in cache:
            cache["table"] = table_of(x)
        if x.sum() > 100:
            return x
        return x + cache["table"]

    assert_close(jax.jit(jax_callable(f))(X), X + 2 * jnp.arange(3))
    assert type(inmost(box).cache.get("table")) in (torch.Tensor, type(None))


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.errors.BridgeWarning")
def test_a_context_variable_that_had_no_value_has_none():
    variable = contextvars.ContextVar("variable")

    def f(x):
        before = variable.get("unset")
        variable.set(x + 1)
        return x * (2 if before == "unset" else 3)

    jax_callable(f).plan(X)
    assert variable.get("unset") == "unset"
    assert_close(jax_callable(f)(X), X * 2)


@pytest.mark.parametrize(
    ("keep", "held"),
    [
        (lambda box, x: box.cache.update(x=x), {}),
        (lambda box, x: box.seen.append(x), []),
        (lambda box, x: box.last.append(x), collections.deque()),
    ],
    ids=["dict", "list", "deque"],
)
def test_an_argument_itself(keep, held):
    before = {id(one) for one in fakes()}
    box = deep(Box(cache={}, seen=[], last=collections.deque()))

    def f(x):
        keep(inmost(box), x)
        return x * 2

    jax_callable(f).plan(jax.ShapeDtypeStruct(X.shape, X.dtype))
    assert held in [inmost(box).cache, inmost(box).seen, inmost(box).last]
    assert [one for one in fakes() if id(one) not in before] == []


def test_results_of_an_lru_cache_that_are_no_fakes_stay():
    @functools.lru_cache
    def counter(name):
        return [0]

    box = deep(Box(counter=counter, cache={}))
    counter("a")[0] = 5

    def near(x):
        counter("b")
        return x * counter("a")[0]

    def far(x):
        own = inmost(box)
        own.cache["x"] = x + 1
        return x * own.counter("a")[0]

    assert_close(jax_callable(near)(X), X * 5)
    counter.cache_clear()
    counter("a")[0] = 5
    jax_callable(far).plan(X)
    assert counter("a") == [5]


class Stubborn(list):
    def clear(self):
        raise RuntimeError

    extend = clear


class StubbornDict(dict):
    def pop(self, *args):
        raise RuntimeError

    clear = update = pop


def test_containers_with_methods_of_their_own_and_their_order():
    box = deep(Box(seen=Stubborn(), cache=StubbornDict(), order={"a": 1, "b": 2, "c": 3}))

    def f(x):
        own = inmost(box)
        own.seen.append(x + 1)
        own.cache["x"] = x + 1
        del own.order["a"]
        own.order["a"] = x + 1
        return x

    jax_callable(f).plan(X)
    own = inmost(box)
    assert own.seen == []
    assert dict(own.cache) == {}
    assert list(own.order.items()) == [("a", 1), ("b", 2), ("c", 3)]


def test_a_cache_that_asks_whether_it_is_traced():
    @functools.lru_cache
    def traced():
        return torch.compiler.is_compiling()

    def f(x):
        if not traced() and x.sum() < 0:
            raise ValueError("negative")
        return x * 2

    assert jax_callable(f).plan(X).inference.flags == "compiling"
    assert not traced()


def test_behind_many_others_in_a_container():
    """What holds a fake is found however much a container holds besides."""
    box = deep(Box(many=[*range(5000), Box()], memo=None))

    def f(x):
        own = inmost(box)
        if getattr(own.many[-1], "memo", None) is None:
            own.many[-1].memo = table_of(x)
            own.memo = [*range(5000), own.many[-1].memo]
        return x + own.many[-1].memo

    wrapped = jax_callable(f)
    assert wrapped.plan(jax.ShapeDtypeStruct((3,), "float32")).inference.traced
    own = inmost(box)
    assert own.memo is None
    assert vars(own.many[-1]) == {}
    assert own.many[:-1] == list(range(5000))
    assert_close(wrapped(X), X * 3)
    assert not isinstance(own.many[-1].memo, FakeTensor)


class LooksAtValues(torch.nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y * (2.0 if float(y.detach().sum()) > 0 else 1.0)


def test_an_evaluation_that_fails_leaves_nothing_to_search_for(monkeypatch):
    """Torch reads the locals of frames, which outlive these; to look at all objects takes long."""
    searches = []
    collect = gc.collect
    monkeypatch.setattr(
        gc, "collect", lambda generation=2: searches.append(generation) or collect(generation)
    )
    module = LooksAtValues(3, 3)
    taken = from_module(module)
    gc.disable()
    try:
        result = taken.apply(taken.params, X)
    finally:
        gc.enable()
    assert_close(result, module(torch.arange(3.0)))
    assert searches == []
