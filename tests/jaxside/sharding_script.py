"""Run by test_sharding.py in a process with eight devices; prints `right` at the end."""

import functools
import re
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import torch
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from comparing import assert_close
from jaxtorch_bridge import ShardingError, SpecMismatchError, ffi_target_names, jax_callable
from jaxtorch_bridge.testing import check_sharding

EXPLICIT = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
AUTO = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
BOTH = (lambda f: f, jax.jit)
COLLECTIVE = re.compile(r"all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter")

CONTRACT = {
    "schema": "jaxtorch/1",
    "name": "layer",
    "version": "1.0.0",
    "inputs": {"x": "float32[batch, k]", "w": "float32[k, m]"},
    "outputs": {"y": "float32[batch, m]"},
    "sharding": {"batch": "data", "m": "model"},
}
rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((8, 3)), jnp.float32)
W = jnp.asarray(rng.standard_normal((3, 4)), jnp.float32)
shapes_seen = []


def torch_layer(x, w):
    shapes_seen.append((tuple(x.shape), tuple(w.shape)))
    return torch.tanh(x @ w)


def twin(x, w):
    return jnp.tanh(x @ w)


def put(array, *spec, mesh=EXPLICIT):
    return jax.device_put(array, NamedSharding(mesh, P(*spec)))


def collectives(function, *arguments):
    return set(COLLECTIVE.findall(jax.jit(function).lower(*arguments).compile().as_text()))


def refused(kind, words, function, *arguments):
    try:
        jax.block_until_ready(function(*arguments))
    except kind as error:
        text = str(error)
        assert re.search(words, text), text
    else:
        raise AssertionError(f"no error about {words}")


def explicit_axes():
    layer = jax_callable(torch_layer, spec=CONTRACT)
    cases = [
        (("data", None), (None, None), "8@data,4]", ((4, 3), (3, 4))),
        ((None, None), (None, "model"), "8,4@model]", ((8, 3), (3, 1))),
        (("data", None), (None, "model"), "8@data,4@model]", ((4, 3), (3, 1))),
    ]
    with jax.set_mesh(EXPLICIT):
        for x_spec, w_spec, result, part in cases:
            x, w = put(X, *x_spec), put(W, *w_spec)
            for jit in BOTH:
                shapes_seen.clear()
                y = jax.block_until_ready(jit(layer)(x, w))
                assert result in str(jax.typeof(y)), jax.typeof(y)
                assert part in shapes_seen
                assert_close(y, twin(X, W))
                for form in derivatives():
                    mine = jit(form(layer))(x, w)
                    assert_close(mine, form(twin)(X, W))
                    for gradient, array in zip(mine, (x, w), strict=True):
                        assert jax.typeof(gradient).sharding == jax.typeof(array).sharding
            assert collectives(layer, x, w) == set()
            loss = jax.grad(lambda x, w: (layer(x, w) ** 2).sum(), (0, 1))
            assert "all-gather" not in collectives(loss, x, w)
            text = layer.explain(x, w)
            assert "one call for each of" in text, text


def derivatives():
    def loss(f):
        return lambda x, w: (f(x, w) ** 2).sum()

    def gradient(f):
        return jax.grad(loss(f), (0, 1))

    def forward_over_reverse(f):
        return lambda x, w: jax.jvp(gradient(f), (x, w), (2 * x, -w))[1]

    def reverse_over_forward(f):
        def directional(x, w):
            return jax.jvp(loss(f), (x, w), (2 * x, w))[1]

        return jax.grad(directional, (0, 1))

    return gradient, forward_over_reverse, reverse_over_forward


def what_is_refused():
    layer = jax_callable(torch_layer, spec=CONTRACT)
    plain = jax_callable(lambda x: x * 2, name="plain")
    square = jnp.ones((8, 8), jnp.float32)
    with jax.set_mesh(EXPLICIT):
        for jit in BOTH:
            f = jit(layer)
            words = r"dimension 1 \(`k`\) whole.*got it sharded along data.*P\(None, None\)"
            refused(ShardingError, words, f, put(square, None, "data"), put(square))
            words = r"dimension 0 \(`batch`\) sharded along data or whole.*jax.P\('data'"
            refused(ShardingError, words, f, put(square, "model"), put(square))
            refused(ShardingError, r"\+model", f, put(square, ("data", "model")), put(square))
            words = r"whole of `x`.*P\('data', None\).*reshard\(x, jax.P\(None, None\)\)"
            refused(ShardingError, words, jit(plain), put(square, "data"))
            refused(
                ShardingError, words, jit(jax.grad(lambda x: plain(x).sum())), put(square, "data")
            )

        both = {
            **CONTRACT,
            "inputs": {"x": "float32[batch, k]", "w": "float32[batch, k]"},
            "outputs": {"y": "float32[batch, k]"},
            "sharding": {"batch": "data"},
        }
        added = jax_callable(lambda x, w: x + w, spec=both)
        words = r"`w`: expected dimension 0 \(`batch`\) sharded along data.*jax.P\('data', N"
        refused(ShardingError, words, added, put(square, "data"), put(square))

        summed = jax_callable(
            lambda x: x.sum(0),
            spec={
                **CONTRACT,
                "inputs": {"x": "float32[batch, k]"},
                "outputs": {"y": "float32[k]"},
                "sharding": {"batch": "data"},
            },
        )
        words = "output `y`: expected the dimension `batch` once.*put the shards together"
        refused(ShardingError, words, summed, put(square, "data"))
        doubled = jax_callable(
            lambda x: torch.cat([x, x]),
            spec={
                **CONTRACT,
                "inputs": {"x": "float32[batch, k]"},
                "outputs": {"y": "float32[2 * batch, k]"},
                "sharding": {"batch": "data"},
            },
        )
        words = r"output `y`: the dimension `2 ?\* ?batch` is computed from `batch`"
        refused(ShardingError, words, doubled, put(square, "data"))
        # An axis that shard_map leaves to the types is not gathered either.
        bare = jax_callable(torch_layer, name="bare")
        partly = jax.shard_map(
            bare, in_specs=(P("data"), P()), out_specs=P("data"), axis_names={"data"}
        )
        words = "bare: expected the whole of `w`"
        weights = put(W, None, "model")
        refused(ShardingError, words, jax.jit(partly), put(X, "data"), weights)
        gradient = jax.grad(lambda x, w: partly(x, w).sum(), 1)
        refused(ShardingError, words, jax.jit(gradient), put(X, "data"), weights)
        # One array along one axis twice: the contract's own mistake.
        twice = jax_callable(
            lambda x: x * 2,
            spec={
                **CONTRACT,
                "inputs": {"x": "float32[n, n]"},
                "outputs": {"y": "float32[n, n]"},
                "sharding": {"n": "data"},
            },
        )
        words = "input `x`: expected one dimension along mesh axis data; got `n` twice"
        refused(ShardingError, words, twice, put(square, "data"))
        outer = jax_callable(
            lambda a, b: a[:, None] * b,
            spec={
                **CONTRACT,
                "inputs": {"a": "float32[n]", "b": "float32[m]"},
                "outputs": {"y": "float32[n, m]"},
                "sharding": {"n": "data", "m": "data"},
            },
        )
        row = square[0]
        assert_close(outer(put(row, "data"), put(row)), square)
        words = "output `y`: expected one dimension along mesh axis data; got `n` and `m`"
        refused(ShardingError, words, outer, put(row, "data"), put(row, "data"))
        # An axis that this mesh has not is no advice.
        elsewhere = jax_callable(torch_layer, spec={**CONTRACT, "sharding": {"batch": "rows"}})
        words = r"\(`batch`\) whole, as .*reshard\(x, jax.P\(None, None\)\)"
        refused(ShardingError, words, elsewhere, put(X, "data"), put(W))
        # What does not fit the contract at all is told first.
        words = "input `z`: expected one of the inputs"
        other_names = jax_callable(lambda z, w: z @ w, spec=CONTRACT)
        refused(SpecMismatchError, words, other_names, put(X, "data"), put(W))
        # A constraint holds for the whole call, and for what torch sees of it.
        for constraint, words in {
            "batch <= 4": r"got 8 <= 4\. Sizes: batch=8",
            "batch % 8 == 0": r"got 4 == 0\. Sizes: batch=4.*sizes of one shard: `batch` along",
        }.items():
            bounded = jax_callable(torch_layer, spec={**CONTRACT, "constraints": [constraint]})
            refused(SpecMismatchError, words, bounded, put(X, "data"), put(W))
        # The contract is enforced on shards as well.
        refused(SpecMismatchError, "dimension `k`", layer, put(X, "data"), put(square))


def batches():
    layer = jax_callable(torch_layer)
    looks = jax_callable(
        lambda x, w: x @ w if x.sum() > -1e9 else x @ w - 1, vmap_method="sequential"
    )
    looks(X, W)
    xs = jnp.stack([X, -X, 2 * X, 3 * X])
    with jax.set_mesh(EXPLICIT):
        sharded, w = put(xs, "data"), put(W)
        for jit in BOTH:
            y = jit(jax.vmap(layer, (0, None)))(sharded, w)
            assert "4@data" in str(jax.typeof(y))
            assert_close(y, jax.vmap(twin, (0, None))(xs, W))
            assert_close(jit(jax.vmap(looks, (0, None)))(sharded, w), xs @ W)

            def total(f):
                def loss(xs, w):
                    return (jax.vmap(f, (0, None))(xs, w) ** 2).sum()

                return jax.grad(loss, (0, 1))

            assert_close(jit(total(layer))(sharded, w), total(twin)(xs, W))

            def inside(f):
                return jax.vmap(jax.grad(lambda x, w: (f(x, w) ** 2).sum(), (0, 1)), (0, None))

            assert_close(jit(inside(layer))(sharded, w), inside(twin)(xs, W))
        assert collectives(jax.vmap(layer, (0, None)), sharded, w) == set()


def batches_of_batches():
    """Nested, and of calls that the contract cuts: one cut at a time, and none gathered."""
    xs = jnp.stack([X, -X, 2 * X, 3 * X])
    xss = jnp.stack([xs, xs + 1])
    over_rows = functools.partial(jax.vmap, in_axes=(0, None))

    def twice(f):
        return over_rows(over_rows(f))

    def gradient(f):
        return jax.grad(lambda *arrays: (f(*arrays) ** 2).sum(), (0, 1))

    with jax.set_mesh(EXPLICIT):
        w = put(W)
        for method in ("torch_vmap", "sequential", "broadcast_all"):
            layer = jax_callable(torch_layer, vmap_method=method)
            cut = jax_callable(torch_layer, spec={**CONTRACT, "vmap_method": method})
            for axes in ((None, "data"), ("data",), ("data", "model")):
                arrays, whole = put(xss, *axes), twice(layer)
                if axes == ("data", "model"):
                    words = r"sharded along data as well.*shard_map that is manual over model and d"
                    refused(ShardingError, words, jax.jit(whole), arrays, w)
                    refused(ShardingError, words, jax.jit(gradient(whole)), arrays, w)
                    # What the message says to write.
                    spec = P("data", "model")
                    whole = jax.shard_map(whole, in_specs=(spec, P()), out_specs=spec)
                assert_close(jax.jit(whole)(arrays, w), twice(twin)(xss, W))
                mine = jax.jit(gradient(whole))(arrays, w)
                assert_close(mine, gradient(twice(twin))(xss, W))
                assert collectives(whole, arrays, w) == set(), axes
            rows = over_rows(cut)
            arrays = put(xs, None, "data"), put(W, None, "model")
            assert_close(jax.jit(rows)(*arrays), over_rows(twin)(xs, W))
            mine = jax.jit(gradient(rows))(*arrays)
            assert_close(mine, gradient(over_rows(twin))(xs, W))
            assert collectives(rows, *arrays) == set()
            words = "layer@1.0.0.*along mesh axis data; got some that are sharded along model"
            refused(ShardingError, words, jax.jit(rows), put(xs, "model", "data"), w)
        # Within a part that the program made itself.
        partly = jax.shard_map(
            cut, in_specs=(P("data"), P()), out_specs=P("data"), axis_names={"data"}
        )
        words = "manual over data and model"
        refused(ShardingError, words, partly, put(X, "data"), put(W, None, "model"))


def auto_axes():
    plain = jax_callable(lambda x: x * 2, name="plain")
    whole = NamedSharding(AUTO, P())
    x = put(X, "data", mesh=AUTO)
    words = "plain: expected the whole of `x`.*dimension 0 into 2 parts.*jax.shard_map"
    refused(ShardingError, words, plain, x)
    refused(jax.errors.JaxRuntimeError, words, jax.jit(plain), x)
    refused(jax.errors.JaxRuntimeError, words, jax.jit(lambda x: plain(x * 3) + 1), x)
    squared = jax_callable(lambda x: x**2)
    in_loop = jax.jit(lambda x: jax.lax.scan(lambda c, _: (plain(c), None), x, None, length=3)[0])
    refused(jax.errors.JaxRuntimeError, words, in_loop, x)
    refused(jax.errors.JaxRuntimeError, "expected the whole of", jax.jit(jax.vmap(plain)), x)
    gradient = jax.jit(jax.grad(lambda x: squared(x * 3).sum()))
    refused(jax.errors.JaxRuntimeError, "expected the whole of", gradient, x)
    assert_close(plain(put(X, mesh=AUTO)), 2 * X)
    assert_close(jax.jit(plain)(put(X, mesh=AUTO)), 2 * X)
    # After the refusals the same calls work on what is whole.
    asked = jax.jit(lambda x: plain(jax.lax.with_sharding_constraint(x, whole)))
    assert_close(asked(x), 2 * X)
    per_device = jax.shard_map(plain, mesh=AUTO, in_specs=P("data"), out_specs=P("data"))
    assert_close(jax.jit(per_device)(x), 2 * X)
    assert collectives(per_device, x) == set()
    # The check cannot travel with an exported program.
    checks = [jax.export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
    exported = functools.partial(jax.export.export, disabled_checks=checks)
    refused(ShardingError, "cannot be exported for several devices", exported(jax.jit(plain)), x)
    assert exported(jax.jit(per_device))(x).nr_devices == 8
    # Manual over one axis, the other left to XLA.
    partly = jax.shard_map(
        plain, mesh=AUTO, in_specs=P("data"), out_specs=P("data"), axis_names={"data"}
    )
    assert_close(jax.jit(partly)(x), 2 * X)


def checks():
    layer = jax_callable(torch_layer, spec=CONTRACT)
    for mesh in (EXPLICIT, AUTO):
        check_sharding(layer, mesh, X, W)
    mixing = jax_callable(lambda x, w: torch.softmax(x @ w, 1), spec=CONTRACT)
    words = "layer@1.0.0, output, cut .* differs from the call on whole arrays by up to"
    refused(ShardingError, words, check_sharding, mixing, EXPLICIT, X, W)
    refused(ValueError, "`sharding`; .* has none", check_sharding, jax_callable(twin), AUTO, X)
    line = jax.make_mesh((8,), ("other",), axis_types=(AxisType.Auto,))
    refused(ValueError, "expected a mesh with one of", check_sharding, layer, line, X, W)
    words = r"`x`.*size of dimension 0 .* divisible by the 2 devices along mesh axis data; got 7"
    refused(ShardingError, words, check_sharding, layer, EXPLICIT, X[:7], W)

    def scaled(size, function):
        return jax_callable(lambda x, w: size * function(x @ w), spec=CONTRACT)

    # Differences are measured by the values themselves, not by a fixed size.
    for size in (1e-9, 1e9):
        check_sharding(scaled(size, torch.tanh), EXPLICIT, X, W)
        tiny = scaled(size, lambda y: torch.softmax(y, 1))
        refused(ShardingError, "differs from the call on whole", check_sharding, tiny, AUTO, X, W)
    # Two dimensions with one mesh axis are cut one after the other.
    spec = {**CONTRACT, "sharding": {"batch": "data", "m": "data"}}
    check_sharding(jax_callable(torch_layer, spec=spec), AUTO, X, W)


globals()[sys.argv[1]]()
print("right")
