"""Modules as pure functions: values, gradients, buffers; compared with torch itself."""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import ArgumentError, BridgeWarning, ModuleError, from_module, j2t

pytestmark = pytest.mark.derivatives


class Normed(torch.nn.Module):
    """A layer with buffers that training changes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.last = torch.nn.Linear(8, 2)

    def forward(self, x, scale=None):
        y = self.last(torch.tanh(self.norm(self.first(x))))
        return y if scale is None else y * scale


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = torch.nn.Linear(3, 3)
        self.decode = torch.nn.Linear(3, 3)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(torch.tanh(self.encode(x)))


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def state_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_values_and_gradients(compare):
    compare(Normed().eval(), numbers(5, 3))


def test_parameters_come_nested_or_flat():
    module = Normed()
    nested, flat = from_module(module), from_module(module, names="flat")
    assert nested.params.keys() == {"first", "norm", "last"}
    assert nested.params["first"]["weight"].shape == (8, 3)
    assert flat.params.keys() == {name for name, _ in module.named_parameters()}
    assert flat.buffers.keys() == {name for name, _ in module.named_buffers()}
    x = numbers(5, 3)
    expected = nested.apply(nested.params, x, train=False)
    # Either takes the other's form.
    assert_equal(nested.apply(flat.params, x, train=False), expected)
    assert_equal(flat.apply(nested.params, x, train=False), expected)


def test_parameters_share_the_modules_memory_or_do_not():
    module = torch.nn.Linear(64, 64)
    address = module.weight.data_ptr()
    assert from_module(module).params["weight"].unsafe_buffer_pointer() == address
    assert from_module(module, copy=True).params["weight"].unsafe_buffer_pointer() != address


def test_a_shared_parameter_is_one_leaf_and_gets_both_gradients(compare):
    net = compare(Tied(), numbers(5, 3))
    assert net.params["decode"].keys() == {"bias"}
    assert len(jax.tree.leaves(net.params)) == 3
    state = net.dump(net.params)
    assert state.keys() == Tied().state_dict().keys()
    assert_equal(state["encode.weight"], state["decode.weight"])


def test_tensors_that_share_memory_and_are_two_are_told():
    pair = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    pair[1].weight.data = pair[0].weight.data
    with pytest.warns(BridgeWarning, match=r"`0.weight` and `1.weight` of Sequential share memory"):
        from_module(pair)
    viewed = torch.nn.Module()
    viewed.register_buffer("whole", torch.zeros(4))
    viewed.register_buffer("part", viewed.whole[1:3])
    with pytest.warns(BridgeWarning, match="`whole` and `part` of Module share memory"):
        from_module(viewed)
    apart, flat = torch.nn.Module(), torch.zeros(4)
    apart.register_buffer("first", flat[:2])
    apart.register_buffer("second", flat[2:])
    assert from_module(apart).buffers.keys() == {"first", "second"}


def test_hooks_of_parameters_are_told_of():
    module = torch.nn.Linear(3, 2)
    module.weight.register_hook(lambda gradient: gradient * 0)
    with pytest.warns(BridgeWarning, match="hooks on the gradient of `weight` are not run"):
        net = from_module(module)
    found = jax.grad(lambda params: net.apply(params, numbers(4, 3)).sum())(net.params)
    assert float(jnp.abs(found["weight"]).sum()) > 0


def test_two_tensors_of_one_name_are_refused():
    module = torch.nn.Module()
    module._parameters["a.b"] = torch.nn.Parameter(torch.ones(2))
    module.a = torch.nn.Module()
    module.a.b = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ModuleError, match=r"`a.b`: expected names that differ"):
        from_module(module)


def test_a_copy_is_the_same_and_pickles_are_refused():
    net = from_module(torch.nn.Linear(3, 2))
    assert copy.deepcopy([net])[0] is net
    assert copy.copy(net) is net
    # Also what it is made of is never copied: two owners would release the same memory.
    assert copy.deepcopy(net.callable()) is not None
    gc.collect()
    with pytest.raises(ModuleError, match="expected not to be pickled"):
        pickle.dumps(net)
    with pytest.raises(TypeError, match="means nothing in another process"):
        pickle.dumps(net._template)


def test_buffers_that_training_changes_come_back_and_the_module_stays():
    module = Normed()
    before = state_of(module)
    net = from_module(module)
    x = numbers(5, 3)
    theirs = Normed()
    theirs.load_state_dict(before)
    buffers = net.buffers
    for run in (net.apply, jax.jit(net.apply, static_argnames="train")):
        result, buffers = run(net.params, x, buffers=buffers, train=True)
        assert_close(result, theirs(j2t(x)).detach())
    found = net.dump(net.params, buffers)
    for name, value in theirs.state_dict().items():
        assert_close(found[name], value)
    assert int(found["norm.num_batches_tracked"]) == 2
    for name, value in module.state_dict().items():
        assert_equal(value, before[name], label=name)
    assert module.training


def test_buffers_are_a_carry_of_a_scan():
    net = from_module(Normed())
    batches = numbers(4, 5, 3)

    def step(buffers, x):
        result, buffers = net.apply(net.params, x, buffers=buffers, train=True)
        return buffers, result.sum()

    buffers, _ = jax.jit(lambda: jax.lax.scan(step, net.buffers, batches))()
    theirs = Normed()
    theirs.load_state_dict(net.dump(net.params))
    for batch in batches:
        theirs(j2t(batch))
    assert_close(dict(net.dump(net.params, buffers)), dict(theirs.state_dict()))


def test_buffers_with_gradients(in_torch):
    module = Normed()
    net = from_module(module)
    x = numbers(5, 3)

    def loss(params, buffers):
        result, buffers = net.apply(params, x, buffers=buffers, train=True)
        return (result**2).sum(), buffers

    (_, buffers), found = jax.jit(jax.value_and_grad(loss, has_aux=True))(net.params, net.buffers)
    theirs = in_torch(net, module, net.params)
    (theirs(j2t(x)) ** 2).sum().backward()
    for name, parameter in theirs.named_parameters():
        layer, kind = name.split(".")
        assert_close(found[layer][kind], parameter.grad)
    assert_close(buffers["norm"]["running_mean"], theirs.norm.running_mean)


def test_changed_buffers_that_nobody_takes_back_are_an_error():
    net = from_module(Normed())
    x = numbers(5, 3)
    with pytest.raises(ModuleError, match=r"changes the buffers `norm.num_batches_tracked`.*Pass"):
        net.apply(net.params, x, train=True)
    with pytest.raises(ModuleError, match="Pass `buffers=`"):
        jax.jit(net.apply)(net.params, x)
    # The next call works.
    assert net.apply(net.params, x, train=False).shape == (5, 2)


def test_unchanged_buffers_are_handed_back_as_they_are():
    net = from_module(Normed())
    other = jax.tree.map(lambda leaf: leaf + 1, net.buffers)
    result, back = net.apply(net.params, numbers(5, 3), buffers=other, train=False)
    assert back["norm"]["running_var"] is other["norm"]["running_var"]
    own = net.apply(net.params, numbers(5, 3), train=False)
    assert np.abs(result - own).max() > 1e-3


def test_the_mode_is_the_modules_unless_told():
    module = Normed()
    module.norm.eval()
    net = from_module(module)
    x = numbers(5, 3)
    frozen = net.apply(net.params, x)
    assert_close(frozen, net.apply(net.params, x, train=False))
    module.norm.train()  # what is done to the module later does not show
    assert_close(frozen, net.apply(net.params, x))
    _, buffers = net.apply(net.params, x, buffers=net.buffers, train=True)
    assert int(buffers["norm"]["num_batches_tracked"]) == 1


@pytest.mark.parametrize("transform", [lambda function: function, jax.jit])
def test_vmap_over_parameters_and_over_inputs(transform, moved):
    net = from_module(Normed().eval())
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), net.params, moved(net.params))
    x = numbers(5, 3)
    found = transform(jax.vmap(net.apply, in_axes=(0, None)))(stack, x)
    for index in range(2):
        params = jax.tree.map(lambda leaf, index=index: leaf[index], stack)
        assert_close(found[index], net.apply(params, x))
    single = transform(jax.vmap(net.apply, in_axes=(None, 0)))(net.params, x[:, None])
    assert_close(single[:, 0], net.apply(net.params, x))


def test_batch_norm_in_training_under_vmap():
    net = from_module(Normed())
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), net.buffers)
    x = numbers(2, 5, 3)

    def call(buffers, x):
        return net.apply(net.params, x, buffers=buffers, train=True)

    results, buffers = jax.vmap(call)(stack, x)
    for index in range(2):
        result, own = call(net.buffers, x[index])
        assert_close(results[index], result)
        assert_close(jax.tree.map(lambda leaf, index=index: leaf[index], buffers), own)


def test_hessians(moved):
    net = from_module(torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Tanh()))
    x = numbers(4, 2)

    def twin(params, x):
        return jnp.tanh(x @ params["0"]["weight"].T + params["0"]["bias"])

    params = moved(net.params)
    found = jax.hessian(lambda p: (net.apply(p, x) ** 2).sum())(params)
    wanted = jax.hessian(lambda p: (twin(p, x) ** 2).sum())(params)
    assert_close(found, wanted)


def test_keyword_and_optional_arguments():
    net = from_module(Normed().eval())
    x = numbers(5, 3)
    plain = net.apply(net.params, x, scale=None)
    assert_close(net.apply(net.params, x, scale=2.0), 2 * plain)
    scaled = jax.grad(lambda scale: net.apply(net.params, x, scale=scale).sum())(jnp.float32(3))
    assert_close(scaled, plain.sum())


def test_another_method_or_a_function_of_the_module():
    class Two(torch.nn.Linear):
        def squared(self, x):
            return self(x) ** 2

    module = Two(3, 2)
    net = from_module(module)
    x = numbers(5, 3)
    expected = net.apply(net.params, x) ** 2
    by_name = from_module(module, method="squared")
    assert_close(by_name.apply(net.params, x), expected)
    by_function = from_module(module, method=lambda module, x: module(x).square())
    assert_close(by_function.apply(net.params, x), expected)


def test_integer_inputs_and_dtypes_follow_the_arrays():
    module = torch.nn.Sequential(torch.nn.Embedding(7, 4), torch.nn.Linear(4, 2))
    net = from_module(module)
    tokens = jnp.asarray([[1, 2], [3, 6]], jnp.int32)
    expected = module(j2t(tokens)).detach()
    assert_close(net.apply(net.params, tokens), expected)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), net.params)
    result = net.apply(half, tokens)
    assert result.dtype == jnp.bfloat16
    assert_close(result.astype(np.float32), expected, computed_in="bfloat16")
    assert module[1].weight.dtype == torch.float32


def test_parameters_of_integers_go_with_the_buffers(compare):
    class Quantised(torch.nn.Module):
        """A layer as quantisers make it: integers that no optimizer touches, and a scale."""

        def __init__(self) -> None:
            super().__init__()
            codes = torch.randint(-128, 127, (2, 3), dtype=torch.int8)
            self.codes = torch.nn.Parameter(codes, requires_grad=False)
            self.scale = torch.nn.Parameter(torch.full((2, 1), 0.01))

        def forward(self, x):
            return x @ (self.codes * self.scale).T

    net = compare(Quantised(), numbers(5, 3))
    assert net.params.keys() == {"scale"}
    assert net.buffers["codes"].dtype == jnp.int8


def test_adapters_beside_frozen_weights():
    class Adapted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = torch.nn.Linear(3, 3).requires_grad_(False)
            self.down = torch.nn.Linear(3, 1, bias=False)
            self.up = torch.nn.Linear(1, 3, bias=False)

        def forward(self, x):
            return self.base(x) + self.up(self.down(x))

    net = from_module(Adapted(), names="flat")
    assert net.trainable == {
        "base.bias": False,
        "base.weight": False,
        "down.weight": True,
        "up.weight": True,
    }
    frozen = {name: leaf for name, leaf in net.params.items() if not net.trainable[name]}
    adapters = {name: leaf for name, leaf in net.params.items() if net.trainable[name]}
    found = jax.grad(lambda some: net.apply({**frozen, **some}, numbers(5, 3)).sum())(adapters)
    assert found.keys() == {"down.weight", "up.weight"}


def test_torch_tensors_pass_through():
    module = Normed().eval()
    net = from_module(module)
    x = torch.randn(5, 3)
    weights = dict(module.named_parameters())
    result = net.apply(weights, x, buffers=dict(module.named_buffers()))[0]
    assert_equal(result, module(x))
    result.sum().backward()
    assert module.first.weight.grad is not None


def test_wrong_parameters_are_named():
    net = from_module(Normed().eval())
    x = numbers(5, 3)
    few = {name: leaf for name, leaf in net.params.items() if name != "norm"}
    with pytest.raises(ModuleError, match=r"without `norm.bias`, `norm.weight`"):
        net.apply(few, x)
    with pytest.raises(ModuleError, match="with unknown `other`"):
        net.apply({**net.params, "other": x}, x)
    with pytest.raises(ModuleError, match=r"3 buffers.*without `norm.num_batch.*`.buffers`"):
        net.apply(net.params, x, buffers={})
    stack = jax.tree.map(lambda leaf: leaf[None], net.params)
    with pytest.raises(ModuleError, match=r"`first.bias`: expected shape \(8,\).*got \(1, 8\)"):
        net.apply(stack, x)


def test_wrong_modules_are_refused():
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module, got function"):
        from_module(numbers)
    with pytest.raises(ArgumentError, match="expected names as one of nested, flat"):
        from_module(Normed(), names="dotted")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not every torch says that lazy modules are new
        lazy = torch.nn.LazyLinear(3)
    with pytest.raises(ModuleError, match="`weight`: expected a tensor; got one that a lazy"):
        from_module(lazy)
    with pytest.raises(Exception, match=r"`bias`: t2j: .*meta"):
        from_module(torch.nn.Linear(2, 2, device="meta"))


def test_load_and_dump():
    module, other = Normed(), Normed()
    other(torch.randn(4, 3))
    net = from_module(module)
    params, buffers = net.load(other.state_dict())
    assert jax.tree.structure(params) == jax.tree.structure(net.params)
    dumped = net.dump(params, buffers)
    assert list(dumped) == list(other.state_dict())
    assert_close(dict(dumped), dict(other.state_dict()))
    dumped["first.weight"].zero_()  # memory of its own
    assert float(jnp.abs(params["first"]["weight"]).sum()) > 0
    fresh = Normed()
    fresh.load_state_dict(net.dump(params, buffers))
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"first.bias\""):
        net.load({name: value for name, value in dumped.items() if name != "first.bias"})


def test_buffers_that_are_not_persistent_are_arguments_but_not_in_the_state_dict():
    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))
            self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0]), persistent=False)
            self.register_buffer("nothing", None)

        def forward(self, x):
            return x * self.weight * self.mask

    net = from_module(Masked())
    assert net.buffers.keys() == {"mask"}
    assert net.dump(net.params).keys() == {"weight"}
    _, buffers = net.load({"weight": torch.zeros(3)})
    assert_equal(buffers["mask"], [1, 0, 1])


def test_a_dropped_net_goes_with_its_plans():
    net = from_module(torch.nn.Linear(3, 2))
    jax.jit(net.apply)(net.params, numbers(1, 3))
    net.apply(net.params, numbers(1, 3))
    template = weakref.ref(net._template)
    del net
    jax.clear_caches()
    gc.collect()
    assert template() is None
