"""What the code of modules reads from around it: values and gradients must see the same."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import from_module, j2t, jax_callable

SCALE = 1.0


def numbers(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


class ByGlobal(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x) * SCALE


def by_variable(box):
    scale = 1.0

    class ByVariable(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * scale

    def change(value):
        nonlocal scale
        scale = value

    box.append(change)
    return ByVariable


def by_hook(box):
    scale = 1.0

    def change(value):
        nonlocal scale
        scale = value

    def make(*sizes):
        module = torch.nn.Linear(*sizes)
        module.register_forward_hook(lambda layer, given, result: result * scale)
        return module

    box.append(change)
    return make


@pytest.fixture(params=["global", "variable", "hook"])
def scaled(request, monkeypatch):
    """A module that multiplies by a number, and what changes the number."""
    if request.param == "global":
        change = [lambda value: monkeypatch.setitem(globals(), "SCALE", value)]
        return ByGlobal(3, 2), change[0]
    change = []
    kind = by_variable(change) if request.param == "variable" else by_hook(change)
    return kind(3, 2), change[0]


def test_a_number_that_changes_changes_values_and_gradients_alike(scaled):
    module, change = scaled
    net, function, x = from_module(module), jax_callable(module), numbers(4, 3)

    def found():
        of_params = jax.grad(lambda params: net.apply(params, x).sum())(net.params)["weight"]
        of_inputs = jax.grad(lambda x: function(x).sum())(x)
        return net.apply(net.params, x), of_params, of_inputs

    before = found()
    for scale in (2.0, 3.0, 1.0):
        change(scale)
        for now, then in zip(found(), before, strict=True):
            assert_close(now, scale * then)


def test_a_function_of_the_module_closes_over_what_may_change():
    module, teacher, weight = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2), 1.0
    net = from_module(module, method=lambda own, x: (own(x) - teacher(x)) * weight)
    x = numbers(4, 3)

    def compare():
        mine = copy.deepcopy(module)
        with torch.no_grad():
            target = teacher(j2t(x))
        (((mine(j2t(x)) - target) * weight) ** 2).sum().backward()
        found = jax.grad(lambda params: (net.apply(params, x) ** 2).sum())(net.params)
        assert_close(found["weight"], mine.weight.grad)

    compare()
    with torch.no_grad():
        teacher.weight.mul_(2)
    compare()
    teacher.weight = torch.nn.Parameter(torch.ones(2, 3))
    compare()
    weight = 2.0
    compare()
    teacher.register_forward_hook(lambda layer, given, result: 3 * result)
    compare()
