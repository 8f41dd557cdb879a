"""What test_sharding.py runs in interpreters with 8 devices; each function is one check."""

from __future__ import annotations

import copy
import functools
import sys
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import shard_map
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from comparing import assert_close
from jaxtorch_bridge import OutputError, ShardingError
from jaxtorch_bridge.compat import Size, torch2jax, torch2jax_without_vjp, tree_t2j

rng = np.random.default_rng(0)


def mesh_of(kind, *sizes, names=("x", "y")):
    return jax.make_mesh(sizes, names[: len(sizes)], axis_types=(kind,) * len(sizes))


def random(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def message(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was raised")


def stripped_model():
    """A model without parameters of its own, and its parameters."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(12, 8), torch.nn.SiLU(), torch.nn.Linear(8, 4)
    ).requires_grad_(False)
    whole = copy.deepcopy(model)
    params = dict(model.named_parameters())
    for name in params:
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, None)
    return model, params, whole


def forward_over_shards_with_wrapping_inside():
    model, params, whole = stripped_model()

    def call_model_torch(x, params):
        results = []
        for _ in range(3):
            skeleton = copy.deepcopy(model)
            results.append(torch.func.functional_call(skeleton, params, x))
        return sum(results)

    devices = jax.devices()
    mesh = jax.make_mesh((len(devices),), P("x"), devices=devices)
    jax.sharding.set_mesh(mesh)
    params_sharding = NamedSharding(mesh, P())
    batch_sharding = NamedSharding(mesh, P("x", None))
    x = jax.jit(
        lambda: jax.random.normal(jax.random.key(0), (16, 12)), out_shardings=batch_sharding
    )()
    params = jax.tree.map(lambda p: jax.device_put(p, params_sharding), tree_t2j(params))

    @jax.jit
    @functools.partial(shard_map, out_specs=batch_sharding.spec)
    def forward(x, params):
        return torch2jax(call_model_torch, x, params, output_shapes=x[:, :4])(x, params)

    y = forward(x, params)
    assert y.sharding.spec == P("x", None)
    assert_close(np.asarray(y), 3 * whole(torch.from_numpy(np.array(x))).numpy())


def data_parallel_training():
    model, params, whole = stripped_model()
    mesh = mesh_of(AxisType.Auto, 8)
    inputs, targets = random(16, 12), random(16, 4)

    def loss_torch(params, x, y):
        return ((torch.func.functional_call(model, params, (x,)) - y) ** 2).mean()

    arrays = jax.device_put(tree_t2j(params), NamedSharding(mesh, P()))
    loss = torch2jax(loss_torch, params, torch.empty(2, 12), torch.empty(2, 4))

    @jax.jit
    @functools.partial(shard_map, mesh=mesh, in_specs=(P(), P("x"), P("x")), out_specs=(P(), P()))
    def step(params, x, y):
        value, gradient = jax.value_and_grad(lambda params: jax.lax.pmean(loss(params, x, y), "x"))(
            params
        )
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), value

    losses = []
    for _ in range(5):
        arrays, value = step(arrays, inputs, targets)
        losses.append(float(value))

    whole.requires_grad_(True)
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.1)
    expected = []
    for _ in range(5):
        optimizer.zero_grad()
        value = ((whole(torch.from_numpy(inputs)) - torch.from_numpy(targets)) ** 2).mean()
        value.backward()
        optimizer.step()
        expected.append(float(value))
    assert_close(losses, expected)
    assert losses[-1] < losses[0]
    assert_close(arrays, {name: p.detach().numpy() for name, p in whole.named_parameters()})


class Probe:
    """How many calls there were, and how many at once at most."""

    # Without a __dict__, which the engine would see and lock by itself.
    __slots__ = ("active", "calls", "most")

    def __init__(self):
        self.active = self.calls = self.most = 0

    def visit(self):
        self.active, self.calls = self.active + 1, self.calls + 1
        self.most = max(self.most, self.active)
        time.sleep(0.02)
        self.active -= 1


def locks_over_devices():
    mesh = mesh_of(AxisType.Auto, 8)
    mine = threading.Lock()
    for locks in ((True, True), (mine, mine)):
        probe = Probe()

        def visiting(x, probe=probe):
            values = x.detach().numpy()
            probe.visit()
            return torch.from_numpy(2 * values)

        # Two wrapped functions under one lock.
        first, second = (
            torch2jax(visiting, torch.ones(1, 3), output_shapes=Size((1, 3)), lock=lock)
            for lock in locks
        )
        x = random(8, 3)
        mapped = shard_map(
            lambda x, f=first, g=second: f(x) + g(x), mesh=mesh, in_specs=P("x"), out_specs=P("x")
        )
        assert_close(np.asarray(jax.jit(mapped)(x)), 4 * x)
        assert (probe.calls, probe.most) == (16, 1), (probe.calls, probe.most)


def layer(x, w):
    return torch.tanh(x @ w)


def twin(x, w):
    return jnp.tanh(x @ w)


def gradient_of(f):
    return jax.grad(lambda x, w: (f(x, w) ** 2).sum(), (0, 1))


def out_specs_call_once_a_shard():
    mesh = mesh_of(AxisType.Explicit, 4, 2)
    rows = []

    class Rows:
        __slots__ = ()

        def __call__(self, x, w):
            if type(x) is torch.Tensor:
                rows.append(len(x))
            return layer(x, w)

    x, w = random(8, 3), random(3, 2)
    with jax.sharding.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, P("x", None)))
        whole = jax.device_put(w, NamedSharding(mesh, P()))
        for declared in ({}, {"output_shapes": Size((8, 2))}):
            f = torch2jax(Rows(), torch.ones(8, 3), torch.ones(3, 2), out_specs=P("x"), **declared)
            for call in (f, jax.jit(f)):
                rows.clear()
                y = call(sharded, whole)
                assert y.sharding.spec[0] == "x", y.sharding
                assert set(rows) == {2}, rows
                assert_close(np.asarray(y), twin(x, w))
            mine = jax.jit(gradient_of(f))(sharded, whole)
            theirs = gradient_of(twin)(x, w)
            assert_close(tuple(map(np.asarray, mine)), tuple(map(np.asarray, theirs)))
            # Declared outputs hold for the examples alone, in parts too.
            longer = jax.device_put(random(16, 3), NamedSharding(mesh, P("x", None)))
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                assert f(longer, whole).shape == (16, 2)
            assert len(told) == len(declared)
        # Whole arguments, cut because the results are to be.
        assert torch2jax(layer, x, w, out_specs=P())(whole @ whole.T, whole).shape == (3, 2)


def out_specs_of_trees():
    mesh = mesh_of(AxisType.Explicit, 8)
    x = random(8, 3)
    with jax.sharding.set_mesh(mesh):
        sharded = jax.device_put(x, NamedSharding(mesh, P("x")))
        f = torch2jax_without_vjp(
            lambda tree: (tree["x"] * 2, {"total": tree["x"].sum(1)}),
            {"x": torch.ones(8, 3)},
            output_shapes={"twice": Size((8, 3)), "total": Size((8,))},
            out_specs={"twice": P("x"), "total": P("x")},
        )
        # Results are taken in the order of the declared names.
        assert "as declared" in message(OutputError, lambda: f({"x": sharded}))
        g = torch2jax_without_vjp(
            lambda tree: (tree["x"] * 2, {"total": tree["x"].sum(1)}),
            {"x": torch.ones(8, 3)},
            output_shapes=(Size((8, 3)), {"total": Size((8,))}),
            out_specs=P("x"),
        )
        twice, rest = g({"x": sharded})
        assert_close(np.asarray(twice), 2 * x)
        assert_close(np.asarray(rest["total"]), x.sum(1))


def refusals():
    explicit, auto = mesh_of(AxisType.Explicit, 8), mesh_of(AxisType.Auto, 8)
    x = random(8, 3)

    def double(x):
        return x * 2

    with jax.sharding.set_mesh(explicit):
        sharded = jax.device_put(x, NamedSharding(explicit, P("x")))
        assert "expected the whole of `x`" in message(
            ShardingError, lambda: torch2jax(double, x)(sharded)
        )
        short = torch2jax(lambda x: x[:3], x, out_specs=P("x"), output_shapes=Size((3, 3)))
        text = message(ShardingError, lambda: short(sharded))
        assert "expected sizes that" in text, text
        assert "an output of shape (3, 3)" in text, text
    with jax.sharding.set_mesh(auto):
        text = message(
            ShardingError, lambda: torch2jax(double, x, out_specs=P("x"))(jnp.asarray(x))
        )
        assert "expected axes of AxisType.Explicit; got x" in text, text
    # Without a mesh there is nothing to cut.
    assert_close(np.asarray(torch2jax(double, x, out_specs=P("x"))(jnp.asarray(x))), 2 * x)


for name in sys.argv[1:]:
    globals()[name]()
    print(name, "right")
