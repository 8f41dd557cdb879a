"""Modules inside of the libraries that people train with, and Orbax."""

from __future__ import annotations

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import torch
from flax import nnx
from flax.core import freeze

from comparing import assert_close, assert_equal
from jaxtorch_bridge import ModuleError, from_module, j2t
from jaxtorch_bridge.bridges import equinox as equinox_bridge
from jaxtorch_bridge.bridges import linen as linen_bridge
from jaxtorch_bridge.bridges import nnx as nnx_bridge


def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 1)
    )


def data():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((8, 3)), jnp.float32)
    return x, jnp.sin(x.sum(1, keepdims=True))


def trained_in_torch(steps=3, rate=0.1):
    """Losses and the state dict after some steps of plain torch."""
    module, (x, y) = make(), map(j2t, data())
    optimizer = torch.optim.SGD(module.parameters(), rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = ((module(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, module


def check(net, losses, params, buffers):
    expected, module = trained_in_torch()
    assert_close(losses, expected)
    found = net.dump(params, buffers)
    for name, value in module.state_dict().items():
        assert_close(found[name], value)


def test_optax():
    net = from_module(make())
    x, y = data()
    optimizer = optax.sgd(0.1)

    @jax.jit
    def step(params, buffers, state):
        def loss(params):
            found, after = net.apply(params, x, buffers=buffers, train=True)
            return ((found - y) ** 2).mean(), after

        (value, buffers), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), buffers, state, value

    params, buffers, state = net.params, net.buffers, optimizer.init(net.params)
    losses = []
    for _ in range(3):
        params, buffers, state, value = step(params, buffers, state)
        losses.append(float(value))
    check(net, losses, params, buffers)


def test_optax_masks_what_the_module_froze():
    module = make()
    module[0].requires_grad_(False)
    net = from_module(module)
    optimizer = optax.masked(optax.set_to_zero(), jax.tree.map(lambda on: not on, net.trainable))
    grads = jax.tree.map(jnp.ones_like, net.params)
    updates, _ = optimizer.update(grads, optimizer.init(net.params), net.params)
    assert float(jnp.abs(updates["0"]["weight"]).sum()) == 0
    assert float(updates["3"]["bias"][0]) == 1


def test_linen():
    net = from_module(make())
    x, y = data()

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return linen_bridge.TorchModule(net, name="body")(x, train=train)

    model = Model()
    variables = model.init(jax.random.key(0), x, train=True)
    assert variables["params"]["body"]["torch"].keys() == net.params.keys()
    assert int(variables["buffers"]["body"]["torch"]["1"]["num_batches_tracked"]) == 0

    @jax.jit
    def step(variables):
        def loss(params):
            found, changed = model.apply(
                {"params": params, "buffers": variables["buffers"]},
                x,
                train=True,
                mutable=["buffers"],
            )
            return ((found - y) ** 2).mean(), changed

        (value, changed), grads = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
        return {"params": params, **changed}, value

    losses = []
    for _ in range(3):
        variables, value = step(variables)
        losses.append(float(value))
    inner = {name: variables[name]["body"]["torch"] for name in ("params", "buffers")}
    check(net, losses, inner["params"], inner["buffers"])
    with pytest.raises(ModuleError, match=r'would be lost. Pass mutable=\["buffers"\]'):
        model.apply(variables, x, train=True)
    found = model.apply(variables, x, train=False)
    expected, _ = net.apply(inner["params"], x, buffers=inner["buffers"], train=False)
    assert_close(found, expected)


@pytest.mark.parametrize("shared", [True, False])
def test_linen_scans_over_a_module_without_buffers(shared):
    net = from_module(torch.nn.Linear(3, 3))
    x, _ = data()

    class Cell(nn.Module):
        @nn.compact
        def __call__(self, carry, _):
            return jnp.tanh(linen_bridge.TorchModule(net)(carry)), None

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            how = {"variable_broadcast": "params"} if shared else {"variable_axes": {"params": 0}}
            cells = nn.scan(Cell, split_rngs={"params": not shared}, length=3, **how)
            return cells()(x, None)[0]

    variables = Model().init(jax.random.key(0), x)
    assert variables.keys() == {"params"}
    expected = x
    for _ in range(3):
        expected = jnp.tanh(net.apply(net.params, expected))
    assert_close(Model().apply(variables, x), expected)


def test_frozen_dicts_are_understood():
    net = from_module(make())
    x, _ = data()
    found = net.apply(freeze(net.params), x, train=False)
    assert_equal(found, net.apply(net.params, x, train=False))


def test_nnx():
    net = from_module(make())
    x, y = data()
    model = nnx_bridge.TorchModule(net)
    model.train()
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        value, grads = nnx.value_and_grad(lambda model: ((model(x) - y) ** 2).mean())(model)
        optimizer.update(model, grads)
        return value

    losses = [float(step(model, optimizer)) for _ in range(3)]
    params, buffers = (nnx_bridge._values(tree) for tree in (model.params, model.buffers))
    check(net, losses, params, buffers)
    model.eval()
    expected, _ = net.apply(params, x, buffers=buffers, train=False)
    assert_close(model(x), expected)
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == 6


def test_equinox():
    net = from_module(make())
    x, y = data()
    model, state = eqx.nn.make_with_state(equinox_bridge.TorchModule)(net, inference=False)

    @eqx.filter_jit
    def step(model, state):
        def loss(model):
            found, after = model(x, state=state)
            return ((found - y) ** 2).mean(), after

        (value, after), grads = eqx.filter_value_and_grad(loss, has_aux=True)(model)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, grads)), after, value

    losses = []
    for _ in range(3):
        model, state, value = step(model, state)
        losses.append(float(value))
    buffers = state.get(model.index)
    check(net, losses, model.params, buffers)
    with pytest.raises(ModuleError, match=r"would be lost. Pass state="):
        model(x)
    found, _ = eqx.nn.inference_mode(model)(x, state=state)
    expected, _ = net.apply(model.params, x, buffers=buffers, train=False)
    assert_close(found, expected)


def frozen_training(kind):
    """Parameters after a step of SGD with the first layer frozen, in one of the libraries."""
    module = make().eval()
    module[0].requires_grad_(False)
    net, (x, y) = from_module(module), data()

    def error(found):
        return ((found - y) ** 2).mean()

    if kind == "linen":
        model = linen_bridge.TorchModule(net)
        variables = model.init(jax.random.key(0), x)
        rest = {"buffers": variables["buffers"]}
        params = variables["params"]
        grads = jax.grad(lambda p: error(model.apply({"params": p, **rest}, x)))(params)
        return net, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)["torch"]
    if kind == "equinox":
        model = equinox_bridge.TorchModule(net)
        grads = eqx.filter_grad(lambda model: error(model(x)))(model)
        return net, eqx.apply_updates(model, jax.tree.map(lambda g: -0.1 * g, grads)).params
    if kind == "nnx":
        model = nnx_bridge.TorchModule(net)
        optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
        optimizer.update(model, nnx.grad(lambda model: error(model(x)))(model))
        return net, nnx_bridge._values(model.params)
    grads = jax.jit(jax.grad(lambda p: error(net.apply(net.freeze(p), x))))(net.params)
    return net, jax.tree.map(lambda p, g: p - 0.1 * g, net.params, grads)


@pytest.mark.parametrize("kind", ["plain", "linen", "nnx", "equinox"])
def test_frozen_parameters_are_not_trained(kind):
    net, params = frozen_training(kind)
    theirs = make().eval()
    theirs[0].requires_grad_(False)
    x, y = map(j2t, data())
    ((theirs(x) - y) ** 2).mean().backward()
    torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], 0.1).step()
    found = net.dump(params)
    for name, value in theirs.named_parameters():
        assert_close(found[name], value.detach(), label=name)
    assert_equal(params["0"], net.params["0"])


def test_orbax_round_trip(tmp_path):
    net = from_module(make())
    x, _ = data()
    _, buffers = net.apply(net.params, x, buffers=net.buffers, train=True)
    saved = {"params": net.params, "buffers": buffers}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", saved)
        checkpointer.wait_until_finished()
        like = jax.tree.map(jnp.zeros_like, saved)
        back = checkpointer.restore(tmp_path / "state", like)
    assert_equal(back, saved)
    found, _ = net.apply(back["params"], x, buffers=back["buffers"], train=False)
    expected, _ = net.apply(net.params, x, buffers=buffers, train=False)
    assert_equal(found, expected)
