"""Which mode a call runs in, and what its keywords mean."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import ArgumentError, BridgeWarning, ModuleError, from_module, j2t


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class Frozen(torch.nn.Module):
    """Keeps its statistics in training too, in the usual way."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.drop = torch.nn.Dropout(0.5)

    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x):
        return self.norm(x)


def test_layers_have_their_own_way_of_being_trained():
    module, x = torch.nn.Sequential(Frozen()), numbers(4, 3)
    net = from_module(module)
    expected = module.train()(j2t(x)).detach()
    for call in (net.apply, jax.jit(net.apply, static_argnames="train")):
        result, buffers = call(net.params, x, buffers=net.buffers, train=True)
        assert_close(result, expected)
        assert int(buffers["0"]["norm"]["num_batches_tracked"]) == 0


def test_a_mode_that_changes_tensors_is_refused():
    class Merges(torch.nn.Linear):
        def train(self, mode=True):
            self.weight.data += 1
            return super().train(mode)

    module = Merges(3, 2)
    net, weight = from_module(module), module.weight.clone()
    with pytest.raises(ModuleError, match=r"expected `eval\(\)` of its layers to set modes only"):
        net.apply(net.params, numbers(4, 3), train=False)
    assert_equal(module.weight, weight)
    assert_close(net.apply(net.params, numbers(4, 3)), module(j2t(numbers(4, 3))).detach())


def test_a_keyword_of_two_meanings_is_an_error():
    class Takes(torch.nn.Linear):
        def forward(self, x, train=False):
            return super().forward(x) * (2 if train else 1)

    net, x = from_module(Takes(3, 2)), numbers(4, 3)
    plain = net.apply(net.params, x)
    assert_close(net.apply(net.params, x, True), 2 * plain)
    with pytest.raises(ArgumentError, match="expected `train=` to mean one thing"):
        net.apply(net.params, x, train=True)
    renamed = from_module(Takes(3, 2), method=lambda module, x, twice: module(x, train=twice))
    doubled = renamed.apply(net.params, x, twice=True, train=False)
    assert_close(doubled, 2 * plain)


def test_a_bound_method_is_one_of_the_module():
    class Two(torch.nn.Linear):
        def squared(self, x):
            return self(x) ** 2

    module, x = Two(3, 2), numbers(4, 3)
    net = from_module(module, method=module.squared)
    doubled = jax.tree.map(lambda leaf: 2 * leaf, net.params)
    expected = 4 * module.squared(j2t(x)).detach()
    assert_close(net.apply(doubled, x), expected)


def test_undeclared_randomness_is_told_in_words_of_apply():
    net = from_module(torch.nn.Dropout(0.5))
    with pytest.warns(
        BridgeWarning, match=r"Pass a key in every call: apply\(\.\.\., rng=jax"
    ) as w:
        net.apply(net.params, numbers(4, 3), train=True)
    assert "jax_callable" not in str(w[0].message)
