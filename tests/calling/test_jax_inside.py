"""Torch functions that call JAX themselves: by numpy, by DLPack, by the bridge's own transfers."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close
from jaxtorch_bridge import from_module, j2t, jax_callable, t2j

pytestmark = pytest.mark.filterwarnings("ignore:.*found abstractly")

X = jnp.array([1.0, 2.0, 3.0])


@jax.jit
def simulate(x):
    return jnp.cumsum(x * 2 + 1) @ jnp.eye(3)


def by_numpy(x):
    return torch.from_numpy(np.array(simulate(x.numpy())))


def by_dlpack(x):
    return torch.from_dlpack(simulate(jnp.from_dlpack(x.contiguous())))


def by_transfers(x):
    # A tensor of its own: JAX must not keep XLA's memory.
    return j2t(simulate(t2j(x.clone())))


def not_jitted(x):
    return j2t(jnp.sin(t2j(x.clone())) * 2 + 1)


def in_the_middle(x):
    return by_transfers(x * 2).sin() + by_numpy(x)


WAYS = {
    "numpy": (by_numpy, simulate),
    "dlpack": (by_dlpack, simulate),
    "transfers": (by_transfers, simulate),
    "not_jitted": (not_jitted, lambda x: jnp.sin(x) * 2 + 1),
    "middle": (in_the_middle, lambda x: jnp.sin(simulate(x * 2)) + simulate(x)),
}
ALL = pytest.mark.parametrize("way", WAYS)


@ALL
def test_eager(way):
    function, twin = WAYS[way]
    call = jax_callable(function)
    for scale in (1.0, 2.0, 3.0):
        assert_close(call(X * scale), twin(X * scale))


@ALL
@pytest.mark.parametrize("example", [None, (torch.ones(3),)], ids=["zeros", "example"])
def test_jitted(way, example):
    function, twin = WAYS[way]
    call = jax.jit(jax_callable(function, example=example))
    for scale in (1.0, 2.0, 3.0):
        assert_close(call(X * scale), twin(X * scale))


@ALL
def test_jitted_after_an_eager_call(way):
    function, twin = WAYS[way]
    call = jax_callable(function)
    call(X)
    assert_close(jax.jit(lambda x: call(x) + call(x * 2))(X), twin(X) + twin(X * 2))


@ALL
def test_in_loops_and_batches(way):
    function, twin = WAYS[way]
    call = jax_callable(function, example=(torch.ones(3),), vmap_method="sequential")
    found = jax.jit(lambda x: jax.lax.fori_loop(0, 5, lambda _, y: call(y) * 0.1, x))(X)
    assert_close(found, jax.lax.fori_loop(0, 5, lambda _, y: twin(y) * 0.1, X))
    batch = jnp.stack([X, X * 2])
    assert_close(jax.jit(jax.vmap(call))(batch), jnp.stack([twin(X), twin(X * 2)]))


@pytest.mark.derivatives
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside torch"])
@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
@ALL
def test_gradients_are_refused(way, jit, beside):
    function, _ = WAYS[way]
    call = jax_callable(
        # Torch would know of one of the two ways to the result.
        (lambda x: function(x) * x) if beside else function,
        example=(torch.ones(3),),
    )
    with pytest.raises(Exception, match=r"requires_grad|requires grad|detach"):
        jax.block_until_ready(jit(jax.grad(lambda x: call(x).sum()))(X))


def test_constants_may_go_through_jax():
    factor = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)

    def function(x):
        return by_transfers(x.detach()) * x + j2t(simulate(t2j(factor)), copy=True)

    call = jax_callable(function)
    assert_close(jax.grad(lambda x: call(x).sum())(X), simulate(X))


@pytest.mark.derivatives
@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_modules_that_are_called_inside(jit):
    """A call within a recorded one is no part of it, and is cleaned up when it ends."""
    layer = from_module(torch.nn.Linear(3, 3), names="flat")

    def function(x):
        with torch.no_grad():
            y = j2t(layer.apply(layer.params, t2j(x.clone())), copy=True)
            z = j2t(jax.jit(layer.apply)(layer.params, t2j(x.clone())), copy=True)
        return x * y + z

    call = jax_callable(function, example=(torch.ones(3),))
    for scale in (1.0, 2.0):
        found = jit(jax.grad(lambda x: call(x).sum()))(X * scale)
        assert_close(found, layer.apply(layer.params, X * scale))


class ByJax(torch.autograd.Function):
    """Both ways by JAX: the proper form of it."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return j2t(simulate(t2j(x.clone())))

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        _, pull = jax.vjp(simulate, t2j(x.clone()))
        return j2t(pull(t2j(cotangent.clone()))[0])


@pytest.mark.derivatives
@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_gradients_by_a_function_that_has_its_own(jit):
    call = jax_callable(lambda x: ByJax.apply(x * 1) * x, example=(torch.ones(3),))
    found = jit(jax.grad(lambda x: call(x).sum()))(X)
    assert_close(found, jax.grad(lambda x: (simulate(x) * x).sum())(X))


@pytest.mark.derivatives
def test_what_no_gradient_goes_through():
    layer = torch.nn.Linear(3, 3)

    def function(x):
        with torch.no_grad():
            seen = j2t(simulate(t2j(x * 2)), copy=True)
        return x * seen + j2t(simulate(t2j(layer(torch.ones(3)))), copy=True)

    call = jax_callable(function, example=(torch.ones(3),))
    assert_close(jax.grad(lambda x: call(x).sum())(X), simulate(X * 2))


PROGRAM = """
import warnings
warnings.simplefilter("ignore")
import jax, jax.numpy as jnp, numpy as np, torch
from jax.sharding import NamedSharding, PartitionSpec as P
from jaxtorch_bridge import j2t, jax_callable, t2j

@jax.jit
def inner(a):
    # Large enough for XLA to use its threads.
    return jnp.tanh(a @ a) @ jnp.sort(a, axis=1) + jnp.cumsum(a, axis=0)

def torch_side(x):
    return j2t(inner(t2j(x.clone()))) * 0.001

call = jax_callable(torch_side, example=(torch.ones(100, 100),))

@jax.jit
def outer(x):
    # Calls that do not wait for each other.
    parts = [call(jnp.sin(x + i)) for i in range(6)]
    return sum(jnp.tanh(part @ part) for part in parts).sum()

count = len(jax.devices())
mesh = jax.make_mesh((count,), ("d",))
on_all = jax.jit(jax.shard_map(
    lambda x: outer(x[0])[None], mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=False
))
x = np.random.default_rng(0).standard_normal((count, 100, 100)).astype(np.float32)
x = jax.device_put(x, NamedSharding(mesh, P("d")))
for number in range(3):
    results = [on_all(x + i) for i in range(8)]
    jax.block_until_ready(results)
print("done")
"""


# XLA's threads: as many as there are cores on one device; see docs/devices.md.
@pytest.mark.parametrize("devices", [1, 4])
def test_inner_programs_do_not_wait_for_ever(devices):
    several = {"PJRT_NPROC": str(3 * devices)} if devices > 1 else {}
    flags = f"--xla_force_host_platform_device_count={devices}"
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}", **several},
    )
    assert found.stdout.strip() == "done", found.stderr[-2000:]
