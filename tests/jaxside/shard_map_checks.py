"""The checks that test_shard_map_modes.py runs, one group in one interpreter with 8 devices.

Each check does the same with a torch function and with its twin in jnp, and compares.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from comparing import assert_close
from jaxtorch_bridge import jax_callable

rng = np.random.default_rng(0)
x = jnp.asarray(rng.standard_normal((8, 3)), jnp.float32)
w = jnp.asarray(rng.standard_normal((3, 2)), jnp.float32)

# ---- One function on three rungs of the ladder, and its twin -------------------------------------


def contract(name, **more):
    inputs = {"x": "float32[rows, size]", "w": "float32[size, out]"}
    outputs = {"y": "float32[rows, out]"}
    head = {"schema": "jaxtorch/1", "name": name, "version": "1.0.0"}
    return {**head, "inputs": inputs, "outputs": outputs, **more}


def looks_at_values(x, w):
    y = torch.tanh(x @ w)
    return y if x.sum() > -1e9 else -y


RUNGS = {
    "saved": jax_callable(lambda x, w: torch.tanh(x @ w), spec=contract("saved")),
    "recompute": jax_callable(
        lambda x, w: torch.tanh(x @ w), spec=contract("again", residuals="recompute")
    ),
    "opaque": jax_callable(looks_at_values, spec=contract("opaque")),
}
# The same by each way of batching. The default is among the rungs.
BY_METHOD = {
    method: jax_callable(lambda x, w: torch.tanh(x @ w), spec=contract(method, vmap_method=method))
    for method in ("sequential", "sequential_unrolled", "expand_dims", "broadcast_all")
}


def twin(x, w):
    return jnp.tanh(x @ w)


# ---- What is done to it --------------------------------------------------------------------------


def loss(f):
    return lambda x, w: (f(x, w) ** 2).sum()


def grad(f):
    return jax.grad(loss(f), (0, 1))


def tangents(x, w):
    return 0.5 * x, w + 1


def along(f):
    """The derivative along a direction that depends on nothing that is differentiated."""

    def moved(x, w):
        return jax.jvp(f, (x, w), jax.lax.stop_gradient(tangents(x, w)))[1]

    return moved


def linear(f):
    return lambda x, w: jax.linearize(f, x, w)[1](*tangents(x, w))


MODES = {
    "call": lambda f: f,
    "grad": grad,
    "jvp": lambda f: lambda x, w: jax.jvp(f, (x, w), tangents(x, w)),
    "linearize": linear,
    "jacfwd": lambda f: jax.jacfwd(f, 1),
    "jacrev": lambda f: jax.jacrev(f, 1),
    "forward over reverse": lambda f: along(grad(f)),
    "reverse over forward": lambda f: jax.grad(along(loss(f)), (0, 1)),
    "reverse over reverse": lambda f: jax.grad(
        lambda x, w: (jax.grad(loss(f), 1)(x, w) ** 2).sum(), (0, 1)
    ),
    "hessian": lambda f: jax.hessian(loss(f), 1),
    "vmap": lambda f: lambda x, w: jax.vmap(f, (None, 0))(x, jnp.stack([w, 2 * w])),
    "vmap of grad": lambda f: lambda x, w: jax.vmap(grad(f), (None, 0))(x, jnp.stack([w, 2 * w])),
    "checkpoint": lambda f: grad(jax.checkpoint(f)),
}
FIRST = ("call", "grad", "jvp")
SECOND = ("forward over reverse", "reverse over forward", "reverse over reverse")


# ---- Comparing -----------------------------------------------------------------------------------


def collectives(compiled):
    """Which collectives XLA runs."""
    kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
    return set(re.findall(rf" ({kinds})(?:-start)?\(", compiled.as_text()))


def same(title, ours, theirs, *arrays):
    """Equal values and types, and no kind of collective that the twin does not have.

    All of a title's checks are one program, since each compilation costs a good part of a second.

    Args:
        title: For messages.
        ours: Name to function, with torch inside.
        theirs: The same in jnp.
        arrays: What they are called with.
    """

    def all_of(functions):
        def run(*arrays):
            results = {}
            for name, function in functions.items():
                try:
                    results[name] = function(*arrays)
                except Exception as error:
                    error.add_note(f"{title}, {name}")
                    raise
            return results

        return jax.jit(run).lower(*arrays).compile()

    mine, other = all_of(ours), all_of(theirs)
    found, expected = mine(*arrays), other(*arrays)
    # Derivatives of second order, as sums over the devices in another order.
    assert_close(found, expected, factor=4, label=title)
    types = [jax.tree.map(jax.typeof, results) for results in (found, expected)]
    assert types[0] == types[1], f"{title}: {types[0]} instead of {types[1]}"
    # Not how many of each: XLA merges what is equal, and a torch call with what follows is not.
    more = collectives(mine) - collectives(other)
    assert not more, f"{title}: {more}, which the twin does not need"


def modes(title, on_mesh, rungs, names, *arrays):
    """Every derivative of the function on a mesh."""
    ours, theirs = (
        {
            f"{rung}, {name}": MODES[name](on_mesh(RUNGS[rung] if bridged else twin))
            for rung in rungs
            for name in names
        }
        for bridged in (True, False)
    )
    same(title, ours, theirs, *arrays)


def agrees_with_the_whole(title, on_mesh, names, *arrays):
    """The twin itself is right: the same as without a mesh."""
    found, expected = (
        jax.jit(lambda x, w, f=f: [MODES[name](f)(x, w) for name in names])(*given)
        for f, given in ((on_mesh(twin), arrays), (twin, (x, w)))
    )
    assert_close(jax.device_get(found), jax.device_get(expected), label=title)


# ---- The groups ----------------------------------------------------------------------------------


def one_axis(kind, check_vma):
    """A sharded and a replicated input, over a mesh of one axis, differentiated from outside."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(kind,))
    jax.set_mesh(mesh)
    arrays = jax.device_put(x, P("data")), jax.device_put(w, P())

    def on_mesh(f):
        return jax.shard_map(
            lambda x, w: f(x, w),
            in_specs=(P("data"), P()),
            out_specs=P("data"),
            check_vma=check_vma,
        )

    if kind is AxisType.Auto:
        agrees_with_the_whole("twin", on_mesh, [*FIRST, *SECOND], *arrays)
        modes(kind.name, on_mesh, ["recompute", "opaque"], [*FIRST, *SECOND], *arrays)
    modes(kind.name, on_mesh, ["saved"], MODES, *arrays)


def inside(check_vma):
    """Everything is done to the function within shard_map; what needs a sum is summed by hand."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    jax.set_mesh(mesh)
    arrays = jax.device_put(x, P("data")), jax.device_put(w, P())

    def total(value):
        # Checked, the sum over devices is in the gradient of a replicated input already.
        varies = not check_vma or "data" in jax.typeof(value).mat.varying
        return jax.lax.psum(value, "data") if varies else value

    def on_mesh(mode):
        def one(x, w):
            return jax.tree.map(lambda leaf: total(leaf.sum()), mode(x, w))

        return jax.shard_map(one, in_specs=(P("data"), P()), out_specs=P(), check_vma=check_vma)

    def scanned(f):
        def step(carry, row):
            y = f(row[None] + carry.sum() * 0.1, w)
            return carry + y[0], y

        # The carry varies over the mesh from the start, as scan wants it.
        return lambda x, w: jax.lax.scan(step, (x[0] @ w) * 0, x)

    def scanned_layers(f):
        def step(rows, weight):
            return f(rows, weight) @ jnp.ones((2, 3)), None

        def layers(x, w):
            return jax.lax.scan(step, x, jnp.stack([w, 2 * w, 3 * w]))[0]

        return layers

    inner = {
        **{name: MODES[name] for name in ("grad", "linearize", "vmap", "vmap of grad")},
        **{name: MODES[name] for name in ("jacrev", "checkpoint", *SECOND)},
        "vmap over rows": lambda f: lambda x, w: jax.vmap(f, (0, None))(x[:, None], w),
        "vmap over rows of grad": lambda f: (
            lambda x, w: jax.vmap(grad(f), (0, None))(x[:, None], w)
        ),
        "scan": scanned,
        "grad of scan": lambda f: grad(scanned_layers(f)),
        "grad of scan of checkpoint": lambda f: grad(scanned_layers(jax.checkpoint(f))),
        "jvp of scan": lambda f: along(scanned_layers(f)),
    }
    some = ["grad", "vmap of grad", "grad of scan", *SECOND]
    pairs = [("saved", name) for name in inner]
    pairs += [(rung, name) for rung in ("recompute", "opaque") for name in some]
    pairs += [(method, "vmap over rows of grad") for method in BY_METHOD]
    functions = {**RUNGS, **BY_METHOD}
    ours, theirs = (
        {
            f"{rung}, {name}": on_mesh(inner[name](functions[rung] if bridged else twin))
            for rung, name in pairs
        }
        for bridged in (True, False)
    )
    same("inside", ours, theirs, *arrays)


def vmapped_outside(check_vma):
    """vmap of a shard_map, also with its axis spread over the mesh."""
    mesh = jax.make_mesh((2, 4), ("batch", "data"), axis_types=(AxisType.Auto,) * 2)
    jax.set_mesh(mesh)
    xs = jax.device_put(jnp.stack([x, 2 * x]), P("batch", "data"))

    def on_mesh(f):
        return jax.shard_map(
            lambda x, w: f(x, w),
            in_specs=(P("data"), P()),
            out_specs=P("data"),
            check_vma=check_vma,
        )

    cases = [
        (*rung, name, spread)
        for rung in RUNGS.items()
        for name in ("call", "grad")
        for spread in (None, "batch")
    ]
    cases += [(*one, "grad", "batch") for one in BY_METHOD.items()]
    ours, theirs = (
        {
            # The gradient by w keeps the axis of the batch as well.
            f"{rung}, {name}, spread over {spread}": jax.vmap(
                MODES[name](on_mesh(function if bridged else twin)),
                (0, None),
                spmd_axis_name=spread,
            )
            for rung, function, name, spread in cases
        }
        for bridged in (True, False)
    )
    same("vmapped outside", ours, theirs, xs, w)


def two_axes(first, second, check_vma):
    """A mesh of two axes: manual over both at once, one within the other, or over one only."""
    kinds = {"data": first, "model": second}
    mesh = jax.make_mesh((4, 2), tuple(kinds), axis_types=tuple(kinds.values()))
    jax.set_mesh(mesh)

    def explicit(*names):
        return P(*(name if kinds.get(name) is AxisType.Explicit else None for name in names))

    arrays = (
        jax.device_put(x, NamedSharding(mesh, explicit("data", None))),
        jax.device_put(w, NamedSharding(mesh, explicit(None, "model"))),
    )

    def both(f):
        return jax.shard_map(
            lambda x, w: f(x, w),
            in_specs=(P("data"), P(None, "model")),
            out_specs=P("data", "model"),
            check_vma=check_vma,
        )

    def columns(f):
        return jax.shard_map(
            lambda x, w: f(x, w),
            in_specs=(P(), P(None, "model")),
            out_specs=P(None, "model"),
            axis_names={"model"},
            check_vma=check_vma,
        )

    def rows(f):
        return jax.shard_map(
            lambda x, w: f(x, w),
            in_specs=(P("data"), P()),
            out_specs=P("data"),
            axis_names={"data"},
            check_vma=check_vma,
        )

    title = f"{first.name} and {second.name}"
    modes(f"{title}, both", both, ["saved"], [*FIRST, "forward over reverse"], *arrays)
    # JAX 0.10 cannot lower the reverse mode of nested maps with check_vma, whatever is inside.
    names = ["call", "jvp", "jacfwd"] if check_vma else [*FIRST, *SECOND]
    modes(f"{title}, nested", lambda f: rows(columns(f)), ["saved"], names, *arrays)
    # What is not manual is whole here: the torch function runs on all of it.
    whole = arrays[0], jax.device_put(w, P())
    modes(f"{title}, rows", rows, ["saved", "opaque"], ["grad", "jvp"], *whole)


AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
PURE, MIXED = [(AUTO, AUTO), (EXPLICIT, EXPLICIT)], [(EXPLICIT, AUTO), (AUTO, EXPLICIT)]
GROUPS = {
    "one axis": lambda vma: [one_axis(kind, vma) for kind in (AUTO, EXPLICIT)],
    "inside": lambda vma: (inside(vma), vmapped_outside(vma)),
    "two axes": lambda vma: [two_axes(*kinds, vma) for kinds in (PURE + MIXED if vma else PURE)],
}
