"""Modules beside torch's own word on them."""

from __future__ import annotations

import copy

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import from_module, j2t


def _moved(tree):
    """Other values than the module's own, so that nobody can use those unnoticed."""
    return jax.tree.map(
        lambda leaf: (
            leaf * 1.25 + 0.1 if jnp.issubdtype(leaf.dtype, jnp.inexact) and leaf.ndim else leaf
        ),
        tree,
    )


def _in_torch(net, module, params, buffers=None):
    """A copy of the module with these values."""
    made = copy.deepcopy(module)
    made.load_state_dict(net.dump(params, buffers))
    return made


def _compare(module, *args, first=lambda result: result, net=None):
    """Values, and gradients of a sum of squares by parameters that are not the module's own."""
    net = net or from_module(module)
    params = _moved(net.params)
    theirs = _in_torch(net, module, params)
    expected = first(theirs(*[j2t(arg) for arg in args]))
    (expected**2).sum().backward()

    def call(params, *args):
        return first(net.apply(params, *args))

    for transformed in (call, jax.jit(call)):
        assert_close(transformed(params, *args), expected.detach())
    found = jax.jit(jax.grad(lambda *given: (call(*given) ** 2).sum()))(params, *args)
    named = net.dump(found)
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None:
            continue  # integers
        assert_close(named[name], parameter.grad, label=name)
    return net


@pytest.fixture(autouse=True)
def _seeded():
    """Layers begin with the same values in every run."""
    torch.manual_seed(0)


@pytest.fixture
def compare():
    return _compare


@pytest.fixture
def moved():
    return _moved


@pytest.fixture
def in_torch():
    return _in_torch
