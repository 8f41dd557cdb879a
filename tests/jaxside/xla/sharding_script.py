"""What test_sharding.py runs with four devices, for ``auto`` or ``explicit`` axes."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from comparing import assert_close
from jaxtorch_bridge import ShardingError, from_module, jax_callable
from jaxtorch_bridge.jaxside.aten import registry

KIND = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}[sys.argv[1]]
rng = np.random.default_rng(0)
x = jnp.asarray(rng.standard_normal((8, 4)), jnp.float32)
w = jnp.asarray(rng.standard_normal((4, 6)), jnp.float32)
mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(KIND, KIND))


def cut(array, *axes):
    return jax.device_put(array, NamedSharding(mesh, P(*axes)))


def function(x, w):
    return torch.nn.functional.gelu(x @ w).sum(-1)


call, plain = (jax_callable(function, backend=one) for one in ("xla", "eager"))
verified = jax_callable(function, backend="xla", verify=True)
TRANSFORMS = {
    "value": lambda f: f,
    "grad": lambda f: jax.grad(lambda *a: (f(*a) ** 2).sum(), argnums=(0, 1)),
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), (2 * x, w)),
    "grad of grad": lambda f: jax.grad(
        lambda x, w: (jax.grad(lambda w: (f(x, w) ** 2).sum())(w) ** 2).sum()
    ),
    "checkpoint": lambda f: jax.grad(lambda x, w: jax.checkpoint(f)(x, w).sum()),
    "vmap": lambda f: lambda x, w: jax.vmap(lambda row: f(row[None], w)[0])(x),
}
LAYOUTS = {
    "rows": (("data", None), (None, None)),
    "rows and columns": (("data", None), (None, "model")),
}
for layout, (of_x, of_w) in LAYOUTS.items():
    given = cut(x, *of_x), cut(w, *of_w)
    for name, transform in TRANSFORMS.items():
        want = transform(plain)(x, w)
        for jit in (lambda f: f, jax.jit):
            with jax.set_mesh(mesh):
                found = jit(transform(call))(*given)
            assert_close(jax.device_get(found), jax.device_get(want), label=f"{layout}, {name}")
            if name == "value":
                # Cut as its rows, and not gathered.
                assert found.sharding.spec[0] == "data", found.sharding

# Without a mesh around the call, the arrays' own counts.
found = call(cut(x, "data"), cut(w))
assert_close(jax.device_get(found), jax.device_get(plain(x, w)))


# Scan over layers, and a training step of a module.
def layers(x, ws):
    return jax.lax.scan(lambda y, w: (step(y, w), None), x, ws)[0]


step = jax_callable(lambda y, w: torch.tanh(y @ w), backend="xla")
ws = jnp.asarray(rng.standard_normal((3, 4, 4)), jnp.float32)
want = x
for one in ws:
    want = jnp.tanh(want @ one)
with jax.set_mesh(mesh):
    assert_close(jax.device_get(jax.jit(layers)(cut(x, "data"), cut(ws))), jax.device_get(want))

torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))
taken = from_module(module, backend="xla")
loss = jax.grad(lambda p, x: (taken(p, x) ** 2).mean())
want = jax.grad(lambda p, x: (from_module(module)(p, x) ** 2).mean())(taken.params, x)
with jax.set_mesh(mesh):
    params = jax.tree.map(lambda one: cut(one), taken.params)
    found = jax.jit(loss)(params, cut(x, "data"))
assert_close(jax.device_get(found), jax.device_get(want))

if KIND is AxisType.Explicit:
    # Both sides of a product cut along what is summed: JAX asks how the result is to be.
    try:
        with jax.set_mesh(mesh):
            call(cut(x, None, "data"), cut(w, "data", None))
    except ShardingError as error:
        words = str(error)
        assert "jax.sharding.auto_axes" in words, words
        assert "function: expected" in words, words
    else:
        raise AssertionError("expected an error")
    # As the message says.
    with jax.set_mesh(mesh):
        told = jax.sharding.auto_axes(call, out_sharding=P("data"))
        found = told(cut(x, None, "data"), cut(w, "data", None))
    assert_close(jax.device_get(found), jax.device_get(plain(x, w)))

    batch = torch.from_numpy(rng.standard_normal((8, 3, 3))).float() + 3 * torch.eye(3)
    cut_batch = cut(jnp.asarray(batch.numpy()), "data")
    # Compared along the way with constants, which are cut by nobody.
    for function in (
        lambda a: torch.linalg.inv_ex(a)[0],
        torch.linalg.det,
        lambda a: torch.linalg.lu_factor_ex(a)[0],
        lambda a: torch.nn.functional.max_pool1d(a, 2),
        lambda a: a.cummax(-1)[0],
    ):
        with jax.set_mesh(mesh):
            found = jax_callable(function, backend="xla")(cut_batch)
        assert not found.sharding.is_fully_replicated
        assert_close(jax.device_get(found), function(batch).numpy(), factor=4)
    # Along an axis that is cut: JAX asks, for whatever reason, and what it is told is done.
    for function in (
        lambda a: a.sort(0).values,
        lambda a: a.gather(0, torch.zeros(8, 3, 3).long()),
        lambda a: a.masked_scatter(a > 0, a + 1),
    ):
        refused = jax_callable(function, backend="xla")
        try:
            with jax.set_mesh(mesh):
                refused(cut_batch)
        except ShardingError as error:
            words = str(error)
        else:
            words = "no error"
        assert "jax.sharding.auto_axes" in words, words
        with jax.set_mesh(mesh):
            found = jax.sharding.auto_axes(refused, out_sharding=P("data"))(cut_batch)
        assert_close(jax.device_get(found), function(batch).numpy())

# Checks see the whole of what they check, wherever it is cut, and fail as elsewhere.
matrices = jnp.asarray(rng.standard_normal((8, 3, 3)), jnp.float32) + 3 * jnp.eye(3)
singular = matrices.at[5].set(0)
inverse, eager = (jax_callable(torch.linalg.inv, backend=one) for one in ("xla", "eager"))
CHECKED = {
    "value": lambda f: f,
    "grad": lambda f: jax.grad(lambda a: (f(a) ** 2).sum()),
    "jvp": lambda f: lambda a: jax.jvp(f, (a,), (2 * a,))[1],
    "vmap": lambda f: jax.vmap(f),
    "scan": lambda f: lambda a: jax.lax.scan(lambda b, _: (f(b), None), a, length=3)[0],
}
for name, transform in CHECKED.items():
    want = jax.device_get(transform(eager)(matrices))
    for jit in (lambda f: f, jax.jit):
        run = jit(transform(inverse))
        with jax.set_mesh(mesh):
            found = run(cut(matrices, "data"))
            assert_close(jax.device_get(found), want, label=name, factor=10)
            assert found.sharding.spec[0] == "data", (name, found.sharding)
            for given in (cut(singular, "data"), cut(singular)):
                try:
                    jax.block_until_ready(run(given))
                except Exception as error:
                    words = str(error)
                else:
                    words = "no error"
                assert "singular" in words, (name, words)
with jax.set_mesh(mesh):
    found = jax.jit(verified)(cut(x, "data"), cut(w, None, "model"))
assert_close(jax.device_get(found), jax.device_get(plain(x, w)))

registry._LOWERINGS["tanh.default"] = lambda out, x: jnp.tanh(x) * 1.01
wrong = jax_callable(lambda x: torch.tanh(x).sum(-1), backend="xla", verify=True)
try:
    with jax.set_mesh(mesh):
        jax.block_until_ready(jax.jit(wrong)(cut(x, "data")))
except Exception as error:
    words = str(error)
else:
    words = "no error"
assert "something else than torch" in words, words

# Loops carry what is cut by `shard_map`.
positive = jnp.asarray(rng.uniform(0.2, 2, (8, 3)), jnp.float32)
symmetric = matrices @ matrices.swapaxes(1, 2)
LOOPS = {
    "cholesky": (torch.linalg.cholesky, symmetric),
    "bad minors": (lambda a: torch.linalg.cholesky_ex(a)[1], matrices),
    "exponential": (torch.matrix_exp, matrices),
    "zeta": (lambda b: torch.special.zeta(torch.tensor(2.5), b), positive),
    "polygamma": (lambda b: torch.polygamma(2, b), positive),
    "erfcx": (torch.special.erfcx, positive),
    "of an order": (
        lambda b: torch.special.hermite_polynomial_h(torch.tensor(0.5), (2 * b).floor()),
        positive,
    ),
    "of an argument": (
        lambda b: torch.special.chebyshev_polynomial_t(b / 2, torch.tensor(3)),
        positive,
    ),
}
for name, (run, given) in LOOPS.items():
    cut_up = jax.shard_map(
        jax_callable(run, backend="xla"), mesh=mesh, in_specs=P("data"), out_specs=P("data")
    )
    found = jax.jit(cut_up)(cut(given, "data"))
    want = run(torch.from_numpy(np.asarray(given).copy())).numpy()
    assert_close(jax.device_get(found), want, label=name, scale=abs(want).max(), factor=10)

# Torch's own call gives nothing but empty arrays, and XLA drops it. JAX operations keep the check.
for backend, expected in (("xla", "positive-definite"), ("eager", "jax.shard_map around the call")):
    nothing = jax_callable(lambda a: torch.linalg.cholesky(a)[:0], backend=backend)
    try:
        with jax.set_mesh(mesh):
            jax.block_until_ready(jax.jit(nothing)(cut(singular)))
    except Exception as error:
        words = str(error)
    else:
        words = "no error"
    assert expected in words, (backend, words)

# Explicit and Auto axes in one mesh.
mixed = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit, AxisType.Auto))
with jax.set_mesh(mixed):
    found = jax.jit(call)(jax.device_put(x, NamedSharding(mixed, P("data"))), w)
assert_close(jax.device_get(found), jax.device_get(plain(x, w)))

print("fine")
