"""State dicts: what does not fit, what is no parameter, and arrays that are gone."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import DifferentiationError, ModuleError, from_module, j2t


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def test_dump_refuses_other_shapes():
    net = from_module(torch.nn.Linear(3, 2))
    with pytest.raises(ModuleError, match=r"parameter `weight`: expected shape \(2, 3\).*\(3, 3\)"):
        net.dump({**net.params, "weight": jnp.zeros((3, 3))})


def test_load_works_after_the_parameters_were_donated():
    module = torch.nn.Linear(3, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    net = from_module(module)
    step = jax.jit(lambda params: jax.tree.map(lambda leaf: leaf + 1, params), donate_argnums=0)
    params = step(net.params)
    found, _ = net.load(before)
    for name, value in before.items():
        assert_equal(found[name], value)
        assert_close(params[name], value + 1)
        assert_equal(module.state_dict()[name], value)
    with pytest.raises(ModuleError, match=r"expected the state dict to have `bias`.*donated"):
        net.load({"weight": before["weight"]}, strict=False)


class Scaled(torch.nn.Linear):
    """A layer with state that is no tensor."""

    scale = 2.0

    def get_extra_state(self):
        return self.scale

    def set_extra_state(self, state):
        self.scale = state

    def forward(self, x):
        return super().forward(x) * self.scale


def test_load_refuses_state_that_calls_would_not_see():
    module, other = Scaled(3, 2), Scaled(3, 2)
    net, x = from_module(module), numbers(4, 3)
    params, _ = net.load(other.state_dict())
    assert_close(net.apply(params, x), other(j2t(x)).detach())
    other.scale = 3.0
    with pytest.raises(ModuleError, match="`_extra_state` differ too"):
        net.load(other.state_dict())
    assert module.scale == 2.0


def quantised(seed):
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(layers, {torch.nn.Linear})


@pytest.mark.skipif(
    not hasattr(getattr(torch.ao, "quantization", None), "quantize_dynamic"),
    reason="this torch has no torch.ao.quantization.quantize_dynamic",
)
@pytest.mark.filterwarnings("ignore")  # torch.ao warns of its own end
def test_dynamically_quantised_layers():
    module, x = quantised(0), numbers(4, 3)
    net = from_module(module)
    expected = module(j2t(x))
    for call in (net.apply, jax.jit(net.apply)):
        assert_close(call(net.params, x), expected)
    state = net.dump(net.params)
    assert list(state) == list(module.state_dict())
    with pytest.raises(DifferentiationError, match=r"has no derivative in torch.*quantised"):
        jax.grad(lambda x: net.apply(net.params, x).sum())(x)
    assert net.load(state) == ({}, {})
    quantised(1).load_state_dict(state)
    # Their weights are packed: neither parameters nor buffers.
    with pytest.raises(ModuleError, match=r"`0._packed_params._packed_params`.*Load it into the"):
        net.load(quantised(1).state_dict())
