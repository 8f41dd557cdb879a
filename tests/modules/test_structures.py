"""What could use a module's own tensors, or another call's, without a word."""

from __future__ import annotations

import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal, is_close
from jaxtorch_bridge import BridgeWarning, ModuleError, from_module, j2t, jax_callable

DROP = None


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.mark.parametrize("train", [True, False])
def test_layers_that_keep_their_weights_in_a_list_too(compare, train):
    lstm = torch.nn.LSTM(3, 2, 1, batch_first=True).train(train)
    compare(lstm, numbers(2, 3, 3), first=lambda result: result[0])


def test_attention(compare):
    layer = torch.nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    compare(layer.eval(), numbers(2, 3, 4))


def test_parametrizations(compare):
    compare(torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 2)), numbers(4, 3))


def test_parameters_in_lists_and_dicts(compare):
    class Grouped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Parameter(torch.randn(3, 3))
            self.second = torch.nn.Parameter(torch.randn(3, 3))
            self.groups = {"all": [self.first, self.second]}

        def forward(self, x):
            for weight in self.groups["all"]:
                x = torch.tanh(x @ weight)
            return x

    module = Grouped()
    compare(module, numbers(2, 3))
    assert module.groups["all"][0] is module.first


def test_hooks_get_the_layer_of_the_call(moved, in_torch):
    module = torch.nn.Linear(3, 2)
    module.register_forward_hook(lambda layer, given, result: result + layer.bias.sum())
    net = from_module(module)
    params, x = moved(net.params), numbers(4, 3)
    expected = in_torch(net, module, params)(j2t(x)).detach()
    assert_close(net.apply(params, x), expected)


def _tuple(layer):
    layer.pair = (layer.weight, layer.bias)
    layer.forward = lambda x: x @ layer.pair[0].T
    return layer


def _view(layer):
    layer.flat = layer.weight.detach().view(-1)
    layer.register_forward_hook(lambda inner, given, result: result * inner.flat[0])
    return layer


def _argument(layer):
    weight = layer.weight
    layer.register_forward_hook(lambda inner, given, result: result + weight.sum())
    return layer


def test_functions_that_close_over_the_module_get_the_copy_of_the_call(moved):
    class Holds(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.drop = torch.nn.Linear(3, 2), torch.nn.Dropout(1.0)
            self.steps = [lambda x: self.linear(x), self._halves, lambda x, to=self.drop: to(x)]

        def _halves(self, x):
            return x / 2 if self.training else x

        def forward(self, x):
            for step in self.steps:
                x = step(x)
            return x

    module = Holds()
    net, x = from_module(module), numbers(4, 3)
    params = moved(net.params)
    assert_equal(net.apply(params, x, train=True, rng=jax.random.key(0)), np.zeros((4, 2)))
    found = net.apply(params, x, train=False)
    module.load_state_dict(net.dump(params))
    assert_close(found, module.eval()(j2t(x)).detach())


def _helper(x):
    return DROP(x)


@pytest.mark.parametrize("function", [lambda x: DROP(x), _helper, lambda x: _helper(x)])
def test_functions_that_find_a_module_as_a_global_are_refused(function, monkeypatch):
    monkeypatch.setitem(globals(), "DROP", torch.nn.Dropout(1.0))
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), DROP)
    module.after = function
    with pytest.raises(ModuleError, match=r"keeps the function .*`Dropout` as a global"):
        from_module(module)


@pytest.mark.parametrize("change", [_tuple, _view, _argument])
def test_a_parameter_that_cannot_be_exchanged_is_an_error(change):
    net = from_module(change(torch.nn.Linear(3, 2)))
    with pytest.raises(ModuleError, match="the module reaches `weight` in another way"):
        net.apply(net.params, numbers(4, 3))


def test_a_tensor_computed_from_parameters_beforehand_is_an_error():
    class Doubled(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.double = 2 * self.weight

        def forward(self, x):
            return x @ self.double.T

    net = from_module(Doubled())
    with pytest.raises(ModuleError, match=r"uses `double`, which was computed from its parameters"):
        net.apply(net.params, numbers(4, 3))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("norm", [torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm])
def test_weights_that_a_hook_computes_in_every_call(norm, moved):
    plain = torch.nn.Linear(3, 2)
    module = norm(plain)
    # A copy, as torch's own run writes to what a program may still be reading.
    net, x = from_module(module, copy=True), numbers(4, 3)
    params = moved(net.params)
    found, buffers = jax.jit(net.apply)(params, x, buffers=net.buffers)
    grads = jax.grad(lambda p: net.apply(p, x, buffers=net.buffers)[0].sum())(params)
    module.load_state_dict(net.dump(params))
    expected = module(j2t(x))
    expected.sum().backward()
    assert_close(found, expected.detach())
    for name, parameter in module.named_parameters():
        assert_close(grads[name], parameter.grad)
    after = net.dump(params, buffers)
    for name, buffer in module.named_buffers():
        assert_close(after[name], buffer)


def test_a_parameter_that_cannot_be_exchanged_is_found_where_values_are_looked_at():
    class Looks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))
            self.pair = (self.weight,)

        def forward(self, x):
            return x * self.pair[0] if float(x.sum()) > 0 else x

    net = from_module(Looks())
    with pytest.raises(ModuleError, match="the module reaches `weight` in another way"):
        net.apply(net.params, jnp.ones(3))


def test_a_module_that_looks_at_values(moved):
    class Looks(torch.nn.BatchNorm1d):
        def forward(self, x):
            result = super().forward(x)
            return 2 * result if float(x.sum()) > 0 else result

    net = from_module(Looks(3))
    for x in (numbers(4, 3), -numbers(4, 3)):
        theirs = Looks(3)
        expected = theirs(j2t(x)).detach()
        result, buffers = net.apply(net.params, x, buffers=net.buffers)
        assert_close(result, expected)
        assert_close(buffers["running_mean"], theirs.running_mean)


def test_attributes_that_a_call_sets_are_put_back_and_told_once():
    class Counts(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 2)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            self.last = self.linear(x)
            return self.last * self.calls

    module = Counts()
    net = from_module(module)
    x = numbers(4, 3)
    with pytest.warns(BridgeWarning, match="assigns to `calls`, `last`.*put back") as told:
        results = [net.apply(net.params, x) for _ in range(3)]
    assert len(told) == 1
    for result in results:
        assert_equal(result, results[0])
    assert module.calls == 0
    assert not hasattr(module, "last")


def test_a_tensor_that_is_no_buffer_is_not_written_to():
    class Sums(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.total = torch.zeros(3)

        def forward(self, x):
            self.total += x.sum(0)
            return x + self.total

    module = Sums()
    net = from_module(module)
    with pytest.raises(ModuleError, match=r"writes to `total`.*register_buffer"):
        net.apply(net.params, numbers(4, 3))
    assert_equal(module.total, torch.zeros(3))


def test_buffers_that_are_replaced_come_back():
    class Replaces(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.zeros(3))

        def forward(self, x):
            self.mean = 0.5 * self.mean + x.mean(0)
            return x - self.mean

    net = from_module(Replaces())
    x = numbers(4, 3)
    with pytest.raises(ModuleError, match="changes the buffers `mean`"):
        net.apply(net.params, x)
    buffers = net.buffers
    for _ in range(2):
        result, buffers = jax.jit(net.apply)(net.params, x, buffers=buffers)
    assert_close(buffers["mean"], 1.5 * x.mean(0))
    assert_close(result, x - buffers["mean"])


def test_parameters_that_a_call_writes_to_are_an_error():
    class Clamps(torch.nn.Linear):
        def forward(self, x):
            with torch.no_grad():
                self.weight.clamp_(-0.1, 0.1)
            return super().forward(x)

    net = from_module(Clamps(3, 2))
    with pytest.raises(ModuleError, match="writes to `weight`"):
        net.apply(net.params, numbers(4, 3))


def test_layers_run_by_torchscript_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(torch.nn.Linear(3, 2))
    with pytest.raises(ModuleError, match="is run by TorchScript"):
        from_module(torch.nn.Sequential(scripted))


@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
@pytest.mark.parametrize("way", ["whole", "part", "in place"])
def test_compiled_modules_run_compiled_on_the_parameters_of_the_call(way, moved):
    compiled = []

    def backend(graph, example):
        compiled.append(graph)
        return graph.forward

    class Own(torch.nn.Linear):  # `Module.compile` leaves torch's own layers alone
        def forward(self, x):
            return 2 * super().forward(x)

    plain = torch.nn.Sequential(Own(3, 3), torch.nn.Tanh())
    expected = from_module(plain)
    params, x = moved(expected.params), numbers(4, 3)
    module = torch.nn.Sequential(plain[0], torch.nn.Tanh())
    if way == "whole":
        module = torch.compile(module, backend=backend)
    elif way == "part":
        module[0] = torch.compile(module[0], backend=backend)
    else:
        module[0].compile(backend=backend)
    net = from_module(module)
    assert jax.tree.structure(net.params) == jax.tree.structure(params)
    for given in (params, net.params):
        found = jax.jit(net.apply)(given, x)
        assert_close(found, expected.apply(given, x))
    assert len(compiled) == 1
    grads = [jax.grad(lambda p, one=one: one.apply(p, x).sum())(params) for one in (net, expected)]
    assert_close(*grads)
    torch.compiler.reset()


def test_calls_on_threads_keep_their_parameters_apart():
    module = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 16))
    net = from_module(module)
    weights = dict(module.named_parameters())
    swaps = jax_callable(lambda x: torch.func.functional_call(module, weights, (x,)) * 0)
    x = numbers(8, 16)
    call = jax.jit(net.apply)
    scaled = [
        jax.tree.map(lambda leaf, scale=scale: leaf * scale, net.params) for scale in range(4)
    ]
    expected = [np.asarray(call(params, x)) for params in scaled]
    wrong = []

    def work(index):
        for _ in range(50):
            if not is_close(call(scaled[index], x), expected[index]):
                wrong.append(index)
            swaps(x)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not wrong


DEVICES = """
import jax, jax.numpy as jnp, numpy as np, torch
from comparing import is_close
from jaxtorch_bridge import from_module

net = from_module(torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh()))
x = jnp.ones((4, 8))
scales = jnp.arange(4.0)

def one(scale):
    return net.apply(jax.tree.map(lambda leaf: leaf * scale, net.params), x)

mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
P = jax.sharding.PartitionSpec
over = dict(mesh=mesh, in_specs=P("d"), out_specs=P("d"))
call = jax.jit(jax.shard_map(lambda scale: one(scale[0])[None], **over))
wanted = np.stack([one(scale) for scale in scales])
print(all(is_close(call(scales), wanted) for _ in range(20)))
"""


def test_calls_on_devices_keep_their_parameters_apart(run_python):
    env = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    assert run_python(DEVICES, env=env).strip() == "True"


def test_the_plan_says_that_calls_do_not_meet():
    net = from_module(torch.nn.Linear(3, 2))
    text = net.explain(net.params, numbers(4, 3))
    assert "params['weight']" in text
    assert "concurrency  parallel" in text
