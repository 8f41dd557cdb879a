"""What test_sharding.py runs on several devices, for ``auto`` or ``explicit`` axes: islands."""

import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable

KIND = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}[sys.argv[1]]
rows = jax.device_count() // 2
mesh = jax.make_mesh((rows, 2), ("data", "model"), axis_types=(KIND, KIND))
rng = np.random.default_rng(0)
x = jnp.asarray(rng.standard_normal((8, 4)), jnp.float32)
w = jnp.asarray(rng.standard_normal((4, 6)), jnp.float32)
held = torch.arange(4.0) + 1


def cut(array, *axes):
    return jax.device_put(array, NamedSharding(mesh, P(*axes)))


def several(x, w):
    """Two islands of its own, and one of what it closes over."""
    first = torch.special.airy_ai(x.sin().detach()) * x @ w
    second = torch.special.spherical_bessel_j0(w.detach().abs()).sum(0)
    return ((first.cos() + second) * (x * held).sum(-1, keepdim=True)).sum(-1)


def checked(x, w):
    torch._assert_async((x > -100).all(), "expected what is not small")
    return (x @ w).sum(-1)


TRANSFORMS = {
    "value": lambda f: f,
    "used along cut axes": lambda f: lambda x, w: f(x, w)[:, None] * x + w.sum(),
    "grad": lambda f: jax.grad(lambda *a: (f(*a) ** 2).sum(), argnums=(0, 1)),
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), (2 * x, w)),
    "vmap": lambda f: lambda x, w: jax.vmap(lambda row: f(row[None], w)[0])(x),
    "scan": lambda f: (
        lambda x, w: jax.lax.scan(
            lambda total, _: (jnp.tanh(total + f(x * total, w).mean()), None),
            jnp.float32(1),
            length=3,
        )[0]
    ),
}
LAYOUTS = (
    (("data", None), (None, None)),
    (("data", None), (None, "model")),
    ((("data", "model"), None), (None, None)),
    ((None, None), (None, "data")),
)
for function in (several, checked):
    call, eager = (jax_callable(function, backend=one) for one in ("xla", "eager"))
    for name, transform in TRANSFORMS.items():
        want = jax.device_get(transform(eager)(x, w))
        for of_x, of_w in LAYOUTS:
            for jit in (lambda f: f, jax.jit):
                with jax.set_mesh(mesh):
                    found = jit(transform(call))(cut(x, *of_x), cut(w, *of_w))
                label = f"{function.__name__}, {name}, {of_x}, {of_w}"
                assert_close(jax.device_get(found), want, label=label, factor=20)

# Without a mesh around the call the program has none of its own.
call, eager = (jax_callable(several, backend=one) for one in ("xla", "eager"))
want = jax.device_get(eager(x, w))
assert_close(jax.device_get(jax.jit(call)(cut(x, "data"), cut(w))), want, factor=20)

# On parts that `jax.shard_map` has made along one axis or along all.
for names in ({"data"}, {"data", "model"}):
    for check in (True, False):
        parts = jax.shard_map(
            call,
            mesh=mesh,
            in_specs=(P("data"), P()),
            out_specs=P("data"),
            axis_names=names,
            check_vma=check,
        )
        with jax.set_mesh(mesh):
            found = jax.jit(parts)(cut(x, "data"), cut(w))
        assert_close(jax.device_get(found), want, factor=20)

# A check fails everywhere, and so nobody waits.
refused = jax_callable(checked, backend="xla")
for transform in (lambda f: f, lambda f: jax.grad(lambda *a: (f(*a) ** 2).sum())):
    try:
        with jax.set_mesh(mesh):
            jax.block_until_ready(jax.jit(transform(refused))(cut(x.at[5].set(-999), "data"), w))
    except Exception as error:
        words = str(error)
    else:
        words = "no error"
    assert "expected what is not small" in words, words

# One array, though no two runs give the same: of every dtype, to the bit.
runs, lock = [0], threading.Lock()


def other_each_time(x):
    with lock:
        runs[0] += 1
        return x + runs[0]


def special(x):
    return torch.where(x > 3, x * float("nan"), x * -0.0)


for name, function in (("counted", other_each_time), ("special", special)):
    torch.library.define(f"jaxtorch_meshes::{name}", "(Tensor x) -> Tensor")
    torch.library.impl(f"jaxtorch_meshes::{name}", "CPU", function)
    torch.library.register_fake(f"jaxtorch_meshes::{name}", lambda x: torch.empty_like(x))
ops = torch.ops.jaxtorch_meshes
for dtype in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.int32, jnp.int8, jnp.complex64):
    counted = jax.jit(jax_callable(lambda x: ops.counted(x).clone(), backend="xla"))
    runs[0] = 0
    with jax.set_mesh(mesh):
        found = jax.block_until_ready(counted(cut(jnp.zeros(8, dtype), "data")))
    assert runs[0] >= jax.device_count(), runs
    whole = [np.asarray(jax.device_get(found)).astype(complex)]
    pieces = [np.asarray(piece.data).astype(complex) for piece in found.addressable_shards]
    for one in (*whole, *pieces):
        assert_equal(one, np.full(one.shape, whole[0][0]))
with jax.set_mesh(mesh):
    given = cut(jnp.arange(8.0), "data")
    found = jax.device_get(jax.jit(jax_callable(lambda x: ops.special(x), backend="xla"))(given))
    truth = jax_callable(lambda x: ops.special(x) > 0, backend="xla")
    assert_equal(jax.device_get(jax.jit(truth)(given)), np.zeros(8, bool))
assert_equal(found, special(torch.arange(8.0)).numpy())
assert_equal(np.signbit(found[:4]), np.full(4, True))

print("fine")
