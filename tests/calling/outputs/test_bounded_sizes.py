"""Results whose sizes follow from values, padded to a bound."""

import collections
import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import ffi_target_names, jax_callable
from jaxtorch_bridge.calling.pytrees import trees
from jaxtorch_bridge.errors import (
    ArgumentError,
    BridgeWarning,
    DtypeError,
    SpecError,
    SpecMismatchError,
    TorchExecutionError,
)

X = jnp.array([1.0, -2.0, 3.0, 4.0])
ROWS = jnp.stack([X, -X, 0 * X, X + 5])
# JAX 0.10 raises a failing call of an executable that it knows as a ValueError.
FAILURES = (jax.errors.JaxRuntimeError, ValueError)
# With `xla` arrays of the greatest size, and what is behind the real one masked.
BACKENDS = pytest.mark.parametrize("backend", ["auto", "xla"])
ONE_BY_ONE = pytest.mark.filterwarnings("ignore:.*calls torch once for each element")


def contract(outputs, **fields):
    head = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}
    return {**head, "inputs": {"x": "float32[n]"}, "outputs": outputs, **fields}


def positive(x):
    return x[x > 0]


def twin(x, size=6, fill=-1.0):
    places = jnp.nonzero(x > 0, size=size, fill_value=len(x))[0]
    return jnp.append(x, fill)[places], jnp.minimum((x > 0).sum(), size)


KEPT = {"kept": {"dtype": "float32", "shape": "[kept<=6]", "fill": -1}, "count": "int32[]"}


@ONE_BY_ONE
@BACKENDS
@pytest.mark.parametrize("given", ["contract", "keyword"])
def test_as_jax_pads(given, backend):
    said = {"spec": contract(KEPT)} if given == "contract" else {"outputs": KEPT}
    f = jax_callable(positive, backend=backend, **said)
    for x in (0 * X, X, -X, X + 10):
        for way in (f, jax.jit(f)):
            values, count = way(x)
            want, number = twin(x)
            assert_equal(values, want)
            assert_equal(count, number)
    values, counts = jax.vmap(f)(ROWS)
    assert_equal(values, jax.vmap(twin)(ROWS)[0])
    assert_equal(counts, jnp.array([3, 1, 0, 4]))
    assert jax.eval_shape(f, X)[0].shape == (6,)


@ONE_BY_ONE
@BACKENDS
def test_derivatives_go_to_what_was_kept(backend):
    f = jax_callable(positive, outputs=KEPT, backend=backend)

    def loss(function):
        return lambda x: (function(x)[0] ** 3).sum()

    for x in ROWS:
        for wrap in (lambda g: g, jax.jit):
            mine, other = wrap(jax.value_and_grad(loss(f))), jax.value_and_grad(loss(twin))
            assert_close(mine(x), other(x))
        assert_close(jax.hessian(loss(f))(x), jax.hessian(loss(twin))(x))
        tangents = jax.jvp(lambda x: f(x)[0], (x,), (x + 1,))
        assert_close(tangents, jax.jvp(lambda x: twin(x)[0], (x,), (x + 1,)))
    assert_close(jax.vmap(jax.grad(loss(f)))(ROWS), jax.vmap(jax.grad(loss(twin)))(ROWS))
    assert_close(jax.jacrev(lambda x: f(x)[0])(X), jax.jacfwd(lambda x: twin(x)[0])(X))


@BACKENDS
def test_more_than_the_bound_is_an_error_in_every_way(backend):
    f = jax_callable(positive, outputs="float32[kept<=2]", name="choose", backend=backend)
    words = "choose, output `output`: expected at most 2 \\(`kept<=2`\\); torch returned"
    error, found = {
        "auto": (SpecMismatchError, "3"),
        "xla": (TorchExecutionError, "more"),
    }[backend]
    with pytest.raises(error, match=f"{words} {found}"):
        f(X)
    for way in (jax.jit(f), jax.grad(lambda x: jax.jit(f)(x).sum())):
        with pytest.raises(FAILURES, match="`overflow: cut`"):
            jax.block_until_ready(way(X))
    assert_equal(f(-X), jnp.array([2.0, 0.0]))


def test_an_error_under_jit_has_the_callables_name_and_none_of_our_lines():
    f = jax_callable(lambda x: x[x > 0], outputs="float32[kept<=2]")
    with pytest.raises(FAILURES) as caught:
        jax.block_until_ready(jax.jit(f)(X))
    words = str(caught.value)
    assert "<lambda>, output `output`: expected at most 2 (`kept<=2`)" in words
    assert "jaxtorch_bridge" not in words.replace("jaxtorch_bridge.errors", "")
    assert "raised" not in words


def test_sizes_from_numbers_that_are_read():
    """What was planned from made-up values says what to do, and a bound does it."""

    def best(x):
        return torch.topk(x, int((x > 0).sum())).values

    guessed = jax_callable(best)
    with pytest.warns(BridgeWarning, match="twice more"), pytest.raises(FAILURES) as caught:
        jax.block_until_ready(jax.jit(guessed)(X))
    assert "give its results a bound" in str(caught.value)
    f = jax_callable(best, outputs="float32[n<=6]")
    for way in (f, jax.jit(f)):
        assert_equal(way(X), jnp.array([4.0, 3.0, 1.0, 0, 0, 0]))


@ONE_BY_ONE
@BACKENDS
def test_cut_where_the_contract_says_so(backend):
    kept = {"dtype": "float32", "shape": "[kept<=2]", "overflow": "cut"}
    f = jax_callable(positive, outputs={"kept": kept, "count": "int32[]"}, backend=backend)
    for way in (f, jax.jit(f)):
        values, count = way(X)
        assert_equal(values, jnp.array([1.0, 3.0]))
        assert_equal(count, jnp.array(3))  # how many there were
    assert_equal(jax.grad(lambda x: f(x)[0].sum())(X), jnp.array([1.0, 0.0, 1.0, 0.0]))
    assert_equal(jax.vmap(f)(ROWS)[0], jax.vmap(lambda x: twin(x, 2, 0.0)[0])(ROWS))


FILLS = {
    "bool": ("bool", True),
    "int64": ("int64", -1),
    "int64 beyond floats": ("int64", 2**53 + 1),
    "uint8": ("uint8", 255),
    "float16": ("float16", 0.5),
    "bfloat16": ("bfloat16", -2),
    "nan": ("float32", float("nan")),
    "inf": ("float32", float("-inf")),
    "complex": ("complex64", 1.5),
}


@BACKENDS
@pytest.mark.parametrize(("dtype", "fill"), FILLS.values(), ids=FILLS.keys())
def test_fills(dtype, fill, backend):
    with jax.enable_x64():
        kind = getattr(torch, dtype)
        array = {"dtype": dtype, "shape": "[k<=5]", "fill": fill}
        f = jax_callable(lambda x: x[x > 0].to(kind), outputs={"y": array}, backend=backend)
        want = jnp.array([1, 3, 4], dtype=dtype)
        want = jnp.concatenate([want, jnp.full(2, fill, dtype)])
        for way in (f, jax.jit(f)):
            assert_equal(way(X), want)


def test_bounds_follow_from_the_arguments():
    f = jax_callable(positive, spec=contract({"kept": "float32[kept<=2*n-1]", "count": "int64[]"}))
    for x in (X, X[:2], jnp.append(X, X)):
        assert jax.jit(f)(x)[0].shape == f(x)[0].shape == (2 * len(x) - 1,)
        assert_equal(f(x)[0], twin(x, 2 * len(x) - 1, 0.0)[0])


@BACKENDS
def test_several_arrays_and_axes_share_a_bound(backend):
    def select(x):
        kept = x[x > 0]
        return kept, torch.outer(kept, kept), torch.cumsum(torch.cat([kept[:1] * 0, kept]), 0)

    f = jax_callable(
        select,
        outputs={"a": "float32[k<=5]", "b": "float32[k, k]", "c": "float32[k+1]"},
        backend=backend,
    )
    kept = jnp.array([1.0, 3.0, 4.0, 0.0, 0.0])
    for way in (f, jax.jit(f)):
        a, b, c = way(X)
        assert_equal(a, kept)
        assert_equal(b, jnp.outer(kept, kept))
        assert_equal(c, jnp.array([0.0, 1.0, 4.0, 8.0, 0.0, 0.0]))
    other = jax_callable(
        lambda x: (x[x > 0], x[x < 0]),
        outputs={"a": "float32[k<=5]", "b": "float32[k]"},
        backend=backend,
    )
    error, words = {
        "auto": (SpecMismatchError, r"dimension `k` .* to be 3, set by `a`"),
        "xla": (TorchExecutionError, r"u0 == u1, .* where u0 is how much aten.index.Tensor finds"),
    }[backend]
    with pytest.raises(error, match=words):
        other(X)


def test_two_bounds():
    f = jax_callable(
        lambda x: (x[x > 0], x[x < 0]),
        outputs={
            "below": {"dtype": "int32", "shape": "[]", "counts": "m"},
            "up": "float32[k<=4]",
            "down": "float32[m<=2]",
        },
    )
    for way in (f, jax.jit(f)):
        below, up, down = way(X)
        assert_equal(below, jnp.array(1))
        assert_equal(up, jnp.array([1.0, 3.0, 4.0, 0.0]))
        assert_equal(down, jnp.array([-2.0, 0.0]))


class Found(NamedTuple):
    values: object
    places: object


CONTAINERS = {
    "tuple": (lambda a, b: (a, b), lambda got: (got[1], got[2], got[0])),
    "list": (lambda a, b: [a, b], lambda got: (got[1], got[2], got[0])),
    "dict": (
        lambda a, b: {"places": b, "values": a},
        lambda got: (got["values"], got["places"], got["count"]),
    ),
    "named tuple": (Found, lambda got: (got[0].values, got[0].places, got[1])),
    "nested": (lambda a, b: ((a, b),), lambda got: (got[1][0], got[1][1], got[0])),
}


@pytest.mark.parametrize(("holder", "read"), CONTAINERS.values(), ids=CONTAINERS.keys())
def test_counts_stand_where_the_contract_has_them(holder, read):
    count = {"dtype": "int32", "shape": "[]", "counts": "k"}
    values = {"dtype": "float32", "shape": "[k<=4]"}
    places = {"dtype": "int64", "shape": "[k]", "fill": -1}
    arrays = {"values": values, "places": places}
    nested = holder(1, 2) == ((1, 2),)
    outputs = {"count": count, **({"both": [values, places]} if nested else arrays)}
    f = jax_callable(lambda x: holder(x[x > 0], torch.nonzero(x > 0)[:, 0]), outputs=outputs)
    for way in (f, jax.jit(f)):
        values, places, count = read(way(X))
        assert_equal(values, jnp.array([1.0, 3.0, 4.0, 0.0]))
        assert_equal(places, jnp.array([0, 2, 3, -1]))
        assert_equal(count, jnp.array(3))


def test_a_function_that_returns_its_own_count():
    f = jax_callable(
        lambda x: (x[x > 0], (x > 0).sum()), outputs={"kept": "float32[k<=4]", "n": "int64[]"}
    )
    assert_equal(f(X)[1], jnp.array(3))
    with pytest.raises(SpecMismatchError, match="`count`, which is counted for it"):
        jax_callable(
            lambda x: (x[x > 0], (x > 0).sum()),
            outputs={"kept": "float32[k<=4]", "count": "int64[]"},
        )(X)


def test_what_does_not_fit_the_contract():
    rank = jax_callable(lambda x: x[x > 0][None], outputs="float32[k<=4]", name="rank")
    size = jax_callable(lambda x: torch.nonzero(x > 0), outputs="int64[k<=4, 2]", name="size")
    for f, words in ((rank, "expected rank 1"), (size, "axis 1 to have size 2")):
        for way in (f, jax.jit(f)):
            with pytest.raises(SpecMismatchError, match=words):
                way(X)
    dtype = jax_callable(positive, outputs="int32[k<=4]")
    with pytest.raises(SpecMismatchError, match="expected dtype int32"):
        dtype(X)


def test_with_written_arguments_and_a_key():
    def drop(x, seen):
        seen.add_(1)
        return x[torch.rand(x.shape) > 0.5]

    f = jax_callable(
        drop,
        mutates=("seen",),
        random="key",
        outputs={
            "kept": {"dtype": "float32", "shape": "[k<=4]", "fill": 9},
            "count": "int32[]",
            "seen": "float32[]",
        },
    )
    key = jax.random.key(3)
    for way in (f, jax.jit(f)):
        (kept, count), seen = way(X, jnp.zeros(()), rng=key)
        assert_equal(seen, jnp.ones(()))
        assert (kept != 9).sum() == count
        assert_equal(kept, f(X, jnp.zeros(()), rng=key)[0][0])


def test_modules_and_methods():
    class Gate(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return (x * self.scale)[x > 0]

    gate = Gate()
    for function in (gate, gate.forward, torch.compile(gate, backend="eager")):
        f = jax_callable(function, outputs="float32[k<=4]")
        assert_equal(f(X), jnp.array([2.0, 6.0, 8.0, 0.0]))
        assert_equal(jax.grad(lambda x, f=f: jax.jit(f)(x).sum())(X), 2.0 * (X > 0))


def test_loops_and_branches_of_jax():
    f = jax_callable(positive, outputs=KEPT)

    def body(total, x):
        values, count = f(x)
        return total + jnp.where(jnp.arange(6) < count, values, 0.0).sum(), count

    total, counts = jax.jit(lambda rows: jax.lax.scan(body, 0.0, rows))(ROWS)
    assert_close(total, jnp.maximum(ROWS, 0).sum())
    assert_equal(counts, jnp.array([3, 1, 0, 4]))


def test_annotations_say_what_they_can():
    jaxtyping = pytest.importorskip("jaxtyping")
    array = jaxtyping.Float32[torch.Tensor, "n"]

    def f(x: array) -> jaxtyping.Float32[torch.Tensor, "kept"]:  # noqa: F821
        return x[x > 0]

    g = jax_callable(f, outputs="float32[kept<=n]")
    assert g(X).shape == (4,)
    with pytest.raises(SpecMismatchError, match="rank 1"):
        g(ROWS)
    with pytest.raises(SpecError, match="annotation"):
        jax_callable(f, outputs="float32[kept<=n, 4]")


def test_exported_with_any_size():
    f = jax_callable(positive, spec=contract({"kept": "float32[kept<=n]"}), name="any_size")
    allowed = [jax.export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
    (n,) = jax.export.symbolic_shape("n")
    exported = jax.export.export(jax.jit(f), disabled_checks=allowed)(
        jax.ShapeDtypeStruct((n,), jnp.float32)
    )
    f(X)
    assert_equal(exported.call(X), twin(X, 4, 0.0)[0])


def test_what_it_says_of_itself():
    f = jax_callable(positive, outputs=KEPT)
    text = f.explain(X)
    assert "bound        kept<=6: results are filled up to that, more is an error" in text
    assert "how many there are is `count`" in text
    with pytest.raises(ArgumentError, match="got both"):
        jax_callable(positive, outputs=KEPT, spec=contract(KEPT))
    with pytest.raises(SpecError, match=r"positive: 1 problem.*\n.*`outputs.output`"):
        jax_callable(positive, outputs="float32[k<=4")


def test_fills_are_other_functions():
    fs = [
        jax_callable(positive, outputs={"y": {"dtype": "float32", "shape": "[k<=4]", "fill": fill}})
        for fill in (0, 7)
    ]
    for f, fill in zip(fs, (0.0, 7.0), strict=True):
        assert_equal(jax.jit(f)(X), twin(X, 4, fill)[0])
    assert len({f.plan(X).digest for f in fs}) == 2


def test_counts_stand_before_new_values():
    def f(x, seen):
        seen.add_(1)
        return x[x > 0]

    outputs = {"kept": "float32[k<=4]", "seen": "float32[]", "count": "int32[]"}
    g = jax_callable(f, mutates=("seen",), outputs=outputs)
    with pytest.raises(SpecMismatchError, match="`count`: expected it before the new values"):
        g(X, jnp.zeros(()))


def test_fills_that_jax_does_not_hold():
    array = {"dtype": "int64", "shape": "[k<=5]", "fill": 2**40}
    f = jax_callable(lambda x: torch.nonzero(x > 0)[:, 0], outputs={"y": array})
    with pytest.raises(DtypeError, match="jax_enable_x64"):
        f(X)
    with jax.enable_x64():
        assert f(X)[-1] == 2**40
    with pytest.raises(SpecError, match="at most 65504"):
        jax_callable(
            lambda x: x, outputs={"y": {"dtype": "float16", "shape": "[k<=5]", "fill": 1e6}}
        )
    minus = jax_callable(
        positive, outputs={"y": {"dtype": "float32", "shape": "[k<=5]", "fill": -0.0}}
    )
    assert jnp.signbit(minus(X)[-1])


class Boxes(NamedTuple):
    boxes: torch.Tensor
    scores: torch.Tensor


@dataclasses.dataclass
class Found:
    boxes: torch.Tensor
    scores: torch.Tensor


class Own(dict):
    """A class that torch's registry makes a pytree."""


torch.utils._pytree.register_pytree_node(
    Own,
    lambda own: (list(own.values()), list(own)),
    lambda items, keys: Own(zip(keys, items, strict=True)),
)


def picked(x):
    return x[x > 0], x[x > 0] * 2


NESTED = {
    "named and more": lambda a, b, x: (Boxes(a, b), x),
    "dict and more": lambda a, b, x: ({"scores": b, "boxes": a}, x),
    "dataclass and more": lambda a, b, x: (Found(a, b), x),
    "list of a named and more": lambda a, b, x: [Boxes(a, b), x],
    "named": lambda a, b, x: Boxes(a, b),
    "dataclass": lambda a, b, x: Found(a, b),
    "ordered": lambda a, b, x: collections.OrderedDict(scores=b, boxes=a),
    "dict": lambda a, b, x: {"scores": b, "boxes": a},
    "tuple": lambda a, b, x: (a, b),
    "nested tuple": lambda a, b, x: ((a, b), x),
    "nested lists": lambda a, b, x: [[a], [b, x]],
    "registered": lambda a, b, x: Own(boxes=a, scores=b),
}


def leaves_of(result):
    return trees.flatten(result)[0]


@pytest.mark.parametrize("make", NESTED.values(), ids=NESTED.keys())
@pytest.mark.parametrize("place", [0, 1, 3], ids=["first", "second", "last"])
def test_counts_beside_results_of_any_structure(make, place):
    """What a contract without a count takes, it takes with one, wherever the count stands in it."""
    arrays = {"boxes": "float32[k<=6]", "scores": "float32[k]", "x": "float32[n]"}
    if len(leaves_of(make(1, 2, 3))) == 2:
        del arrays["x"]
    names = [*list(arrays)[:place], "count", *list(arrays)[place:]]
    outputs = {name: arrays.get(name, "int32[]") for name in names}

    def function(x):
        return make(*picked(x), x)

    bare = jax_callable(function, spec=contract(arrays))
    f = jax_callable(function, spec=contract(outputs))
    for way in (lambda g: g, jax.jit):
        result = way(lambda x: leaves_of(f(x)))(X)
        assert_equal([one for one in result if one.dtype == jnp.int32], [jnp.array(3)])
        assert_equal([one for one in result if one.dtype != jnp.int32], leaves_of(bare(X)))

    def loss(g, x):
        return (next(one for one in leaves_of(g(x)) if one.dtype != jnp.int32) ** 2).sum()

    assert_close(jax.grad(lambda x: loss(f, x))(X), jax.grad(lambda x: loss(bare, x))(X))


def test_where_counts_stand():
    arrays = {
        "count": "int32[]",
        "boxes": "float32[k<=6]",
        "scores": "float32[k]",
        "x": "float32[n]",
    }
    two = {name: arrays[name] for name in list(arrays)[:3]}

    def structure(make, outputs):
        return jax.tree.structure(
            jax_callable(lambda x: make(*picked(x), x), spec=contract(outputs))(X)
        )

    assert structure(NESTED["named and more"], arrays) == jax.tree.structure((Boxes(0, 0), 0, 0))
    assert structure(NESTED["tuple"], two) == jax.tree.structure((0, 0, 0))
    assert structure(NESTED["dict"], two) == jax.tree.structure(dict.fromkeys(two, 0))
    assert structure(NESTED["named"], two) == jax.tree.structure((Boxes(0, 0), 0))
    assert structure(NESTED["nested lists"], arrays) == jax.tree.structure(([[0], [0, 0]], 0))


def test_counts_beside_results_and_new_values():
    def moving(x, seen, *, kind):
        seen.add_(1)
        return NESTED[kind](*picked(x), x)

    outputs = {"boxes": "float32[k<=6]", "scores": "float32[k]", "count": "int32[]"}
    for kind in ("named", "dict", "tuple"):
        f = jax_callable(
            functools.partial(moving, kind=kind),
            mutates=("seen",),
            outputs={**outputs, "seen": "float32[]"},
        )
        for way in (f, jax.jit(f)):
            *_, seen = result = way(X, jnp.zeros(()))
            assert_equal(seen, jnp.ones(()))
            leaves = leaves_of(result)
            assert_equal([one for one in leaves if one.dtype == jnp.int32], [jnp.array(3)])
    arrays = {"boxes": "float32[k<=6]", "count": "int32[]", "scores": "float32[k]"}
    nested = functools.partial(moving, kind="nested tuple")
    f = jax_callable(
        nested, mutates=("seen",), outputs={**arrays, "x": "float32[4]", "seen": "float32[]"}
    )
    with pytest.raises(SpecMismatchError, match=r"output `count`: .* Move it down"):
        f(X, jnp.zeros(()))
