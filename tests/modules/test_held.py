"""State that modules keep in objects and containers: no call may see another's, nor change it."""

from __future__ import annotations

import collections
import functools
import threading
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, is_close
from jaxtorch_bridge import BridgeWarning, ModuleError, from_module, j2t


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class Stats:
    """An object as a module may keep one for what it counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.last = None
        self.table = {"inner": [0]}


class Keeps(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)
        self.stats = Stats()
        self.names = types.SimpleNamespace(calls=0)
        self.seen = set()
        self.queue = collections.deque(maxlen=3)
        self.counts = collections.defaultdict(int)
        self.deep = {"a": {"b": [0]}}

    def forward(self, x):
        self.stats.calls += 1
        self.stats.table["inner"][0] += 1
        self.stats.last = self.linear.weight * 2
        self.names.calls += 1
        self.seen.add(len(self.seen))
        self.queue.append(0)
        self.counts["x"] += 1
        self.deep["a"]["b"][0] += 1
        counted = [self.stats.calls, self.stats.table["inner"][0], self.names.calls]
        counted += [len(self.seen), len(self.queue), self.counts["x"], self.deep["a"]["b"][0]]
        return self.linear(x) * sum(counted)

    def picture(self):
        return repr((vars(self.stats), self.names, self.seen, self.queue, self.counts, self.deep))


def test_what_a_call_changes_inside_of_objects_is_put_back():
    module = Keeps()
    before = module.picture()
    net, x = from_module(module), numbers(4, 3)
    with pytest.warns(BridgeWarning, match="the module assigns to `stats.calls`") as told:
        results = [net.apply(net.params, x) for _ in range(3)]
    assert len(told) == 1
    expected = 7 * module.linear(j2t(x)).detach()
    for result in results:
        assert_close(result, expected)
    assert module.picture() == before
    # Nor does a call see what the module's owner does with it.
    module(torch.ones(4, 3))
    jax.clear_caches()
    assert_close(net.apply(net.params, x[:2]), expected[:2])


def test_calls_on_threads_have_objects_of_their_own():
    module = Keeps()
    net, x = from_module(module), numbers(4, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BridgeWarning)
        expected = np.asarray(net.apply(net.params, x))
    call, wrong = jax.jit(net.apply), []

    def work():
        for _ in range(30):
            if not is_close(call(net.params, x), expected):
                wrong.append(1)

    call(net.params, x)
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong
    assert module.stats.calls == 0


def test_a_value_kept_in_an_object_is_not_another_calls():
    class Caches(torch.nn.Linear):
        stats = None

        def forward(self, x):
            if self.stats.last is None:
                self.stats.last = self.weight * 2
            return x @ self.stats.last.T

    module = Caches(3, 2)
    module.stats = Stats()
    net, x = from_module(module), numbers(4, 3)
    with pytest.warns(BridgeWarning, match="`stats.last`"):
        first = net.apply(net.params, x)
    tripled = jax.tree.map(lambda leaf: 3 * leaf, net.params)
    assert_close(net.apply(tripled, x), 3 * first)
    assert module.stats.last is None


def test_a_tensor_in_an_object_is_not_written_to():
    class Sums(torch.nn.Linear):
        def forward(self, x):
            self.stats.last += x.sum()
            return super().forward(x)

    module = Sums(3, 2)
    module.stats = Stats()
    module.stats.last = torch.zeros(())
    net = from_module(module)
    with pytest.raises(ModuleError, match=r"writes to `stats.last`.*register_buffer"):
        net.apply(net.params, numbers(4, 3))
    assert float(module.stats.last) == 0


def test_what_cannot_be_copied_may_not_change():
    class Single(Stats):
        def __copy__(self):
            raise TypeError("there is one")

    class Counts(torch.nn.Linear):
        def forward(self, x):
            self.stats.calls += 1
            return super().forward(x)

    module = Counts(3, 2)
    module.stats = Single()
    with pytest.raises(ModuleError, match=r"\(`stats`\) to be copied.*there is one"):
        from_module(module).apply(from_module(module).params, numbers(4, 3))
    assert module.stats.calls == 0


def test_containers_keep_their_class(compare):
    class Registry(dict):
        def look(self, key):
            return self[key]

    class Listing(list):
        def first(self):
            return self[0]

    class Uses(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.registry = Registry(scale=2.0)
            self.listing = Listing([3.0])

        def forward(self, x):
            return super().forward(x) * self.registry.look("scale") * self.listing.first()

    compare(Uses(), numbers(4, 3))


def test_results_that_methods_cache_are_not_another_calls():
    class Caches(torch.nn.Linear):
        @functools.lru_cache(maxsize=None)  # noqa: B019, UP033 - what is tested
        def doubled(self):
            return 2 * self.weight

        @staticmethod
        @functools.lru_cache
        def table(count):
            return torch.arange(float(count))

        def forward(self, x):
            return x @ self.doubled().T + self.table(2)

    module, x = Caches(3, 2), numbers(4, 3)
    net = from_module(module)
    for scale in (1.0, 2.0, 3.0):
        params = jax.tree.map(lambda leaf, scale=scale: scale * leaf, net.params)
        expected = 2 * x @ params["weight"].T + jnp.arange(2.0)
        for call in (net.apply, jax.jit(net.apply)):
            assert_close(call(params, x), expected)
    assert_close(module(j2t(x)).detach(), net.apply(net.params, x))


def test_layers_in_named_tuples(compare):
    Pair = collections.namedtuple("Pair", "first, last")

    class Holds(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)])
            self.pair = Pair(*self.layers)

        def forward(self, x):
            return self.pair.last(torch.tanh(self.pair.first(x)))

    compare(Holds(), numbers(4, 3))
