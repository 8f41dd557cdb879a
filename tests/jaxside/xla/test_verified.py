"""``verify: true``: what XLA gives is compared with torch, in the first run of each plan."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax import export

from comparing import assert_close
from jaxtorch_bridge import BackendError, jax_callable
from jaxtorch_bridge.jaxside.aten import families, registry

# It fills the registry.
assert families
BOTH = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def function(x):
    return torch.tanh(x @ x.T).sum(0)


@pytest.fixture
def wrong_tanh(monkeypatch):
    monkeypatch.setitem(registry._LOWERINGS, "tanh.default", lambda out, x: jnp.tanh(x) * 1.01)


TRANSFORMS = {
    "value": lambda f: f,
    "grad": lambda f: jax.grad(lambda x: (f(x) ** 2).sum()),
    "jvp": lambda f: lambda x: jax.jvp(f, (x,), (x,)),
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, 2 * x])),
    "hessian": lambda f: jax.hessian(lambda x: f(x).sum()),
}


@BOTH
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_right(name, jit):
    call = jax_callable(function, backend="xla", verify=True)
    x = normal(3, 3)
    transform = TRANSFORMS[name]
    assert_close(jit(transform(call))(x), transform(jax_callable(function))(x), factor=4)


@pytest.mark.usefixtures("wrong_tanh")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_wrong(name):
    call = TRANSFORMS[name](jax_callable(function, backend="xla", verify=True))
    for _ in range(2):
        with pytest.raises(BackendError, match=r"function.*something else than torch by up to"):
            call(normal(3, 3))
    program = jax.jit(call)
    for _ in range(2):
        with pytest.raises(Exception, match=r"BackendError.*something else than torch"):
            jax.block_until_ready(program(normal(3, 3)))


@pytest.mark.usefixtures("wrong_tanh")
def test_a_single_number():
    call = jax_callable(lambda x: torch.tanh(x).sum(), backend="xla", verify=True)
    with pytest.raises(BackendError, match="something else than torch"):
        call(normal(3))


def test_torch_runs_once():
    runs = []

    def counted(x):
        runs.append(isinstance(x, torch._subclasses.FakeTensor))
        return x.sin()

    program = jax.jit(jax_callable(counted, backend="xla", verify=True))
    for scale in (1.0, 2.0, 3.0):
        jax.block_until_ready(program(scale * jnp.ones(3)))
    assert runs.count(False) == 1


def test_what_it_writes_to_is_its_own():
    def writing(x):
        y = x.clone()
        return y.add_(1), y

    call = jax.jit(jax_callable(writing, backend="xla", verify=True))
    assert_close(call(jnp.ones(3)), (jnp.full(3, 2.0), jnp.full(3, 2.0)))


def test_what_draws():
    call = jax_callable(lambda x: torch.rand_like(x), backend="xla", verify=True, random="key")
    with pytest.raises(BackendError, match=r"verify: true.*random numbers"):
        call(normal(3), rng=jax.random.key(0))


def test_a_key_that_nothing_is_drawn_from():
    call = jax_callable(
        lambda x: torch.nn.functional.dropout(x, training=False),
        backend="xla",
        verify=True,
        random="key",
    )
    assert_close(call(jnp.ones(3), rng=jax.random.key(0)), jnp.ones(3))


def test_a_program_for_elsewhere_has_no_comparison():
    call = jax.jit(jax_callable(function, backend="xla", verify=True))
    assert "custom_call" not in export.export(call, platforms=["tpu"])(normal(3, 3)).mlir_module()


def test_other_backends_have_none():
    call = jax_callable(function, backend="graph", verify=True)
    assert jax.jit(call).lower(normal(3, 3)).as_text().count("stablehlo.custom_call") == 1
