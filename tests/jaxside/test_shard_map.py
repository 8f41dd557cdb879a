"""Under shard_map: the missing psum of a replicated input's gradient. In a child process, since
JAX reads the number of host devices once."""

from __future__ import annotations

import pytest

SCRIPT = """
import jax, jax.numpy as jnp, numpy as np, torch
from comparing import assert_close
from jax.sharding import AxisType, PartitionSpec as P
from jaxtorch_bridge import jax_callable

mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
layer = jax_callable(lambda x, w: torch.tanh(x @ w))
rng = np.random.default_rng(0)
x = jnp.asarray(rng.standard_normal((8, 3)), jnp.float32)
w = jnp.asarray(rng.standard_normal((3, 2)), jnp.float32)
twin = lambda x, w: jnp.tanh(x @ w)
for jit in (lambda f: f, jax.jit):
    sharded = jax.shard_map(
        lambda x, w: layer(x, w), mesh=mesh, in_specs=(P("d"), P()), out_specs=P("d"),
        check_vma=CHECK)
    assert_close(jit(sharded)(x, w), twin(x, w))
    for i in (0, 1):
        mine = jit(jax.grad(lambda *a: (sharded(*a) ** 2).sum(), argnums=i))(x, w)
        theirs = jax.grad(lambda *a: (twin(*a) ** 2).sum(), argnums=i)(x, w)
        assert_close(mine, theirs)
print("right")
"""


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_of_sharded_and_replicated_inputs(check_vma, run_python):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    assert run_python(f"CHECK = {check_vma}\n{SCRIPT}", env=flags).strip() == "right"
