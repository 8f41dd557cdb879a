"""What jax.vmap does, by each method: against a jax.numpy twin, by counting calls, in words."""

from __future__ import annotations

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import (
    ArgumentError,
    BatchingError,
    BridgeWarning,
    SpecError,
    jax_callable,
)
from jaxtorch_bridge.testing import check_batching

pytestmark = pytest.mark.derivatives

METHODS = ("torch_vmap", "sequential", "sequential_unrolled", "expand_dims", "broadcast_all")
LOOPS = ("sequential", "sequential_unrolled")
CLAIMS = ("expand_dims", "broadcast_all")
BOTH = pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])

rng = np.random.default_rng(0)
X = jnp.asarray(rng.standard_normal((4, 2, 3)), jnp.float32)
W = jnp.asarray(rng.standard_normal((4, 3, 5)), jnp.float32)


def layer(x, w):
    return torch.tanh(x @ w)


def twin(x, w):
    return jnp.tanh(x @ w)


MAPPED = {
    "both": ((0, 0), 0, (X, W)),
    "first": ((0, None), 0, (X, W[0])),
    "second": ((None, 0), 0, (X[0], W)),
    "inner_axes": ((2, 1), 1, (X.transpose(1, 2, 0), W.transpose(1, 0, 2))),
    "negative": ((-1, 0), -1, (X.transpose(1, 2, 0), W)),
}


@BOTH
@pytest.mark.parametrize("axes", MAPPED)
@pytest.mark.parametrize("method", METHODS)
def test_values_and_gradients(method, axes, jit):
    f = jax_callable(layer, vmap_method=method, verify=True)
    in_axes, out_axes, arguments = MAPPED[axes]
    mapped = functools.partial(jax.vmap, in_axes=in_axes, out_axes=out_axes)

    def inside(g):
        gradient = jax.grad(lambda x, w: (g(x, w) ** 2).sum(), (0, 1))
        return jax.vmap(gradient, in_axes=in_axes)

    def outside(g):
        return jax.grad(lambda x, w: (mapped(g)(x, w) ** 2).sum(), (0, 1))

    def forwards(g):
        return lambda x, w: jax.jvp(mapped(g), (x, w), (w.sum() * x, w))

    for form in (mapped, inside, outside, forwards):
        assert_close(jit(form(f))(*arguments), form(twin)(*arguments))


@pytest.mark.parametrize("method", METHODS)
def test_nested(method):
    f = jax_callable(layer, vmap_method=method)
    stacked = jnp.stack([X, 2 * X, -X])

    def cross(g):
        return jax.vmap(jax.vmap(g, (None, 0)), (0, None))

    def rows(g):
        return jax.vmap(jax.vmap(g, (0, None)), (0, None))

    def twice(g):
        return jax.vmap(jax.vmap(g, (0, 0)), (0, None))

    for form, arguments in ((cross, (X, W)), (rows, (stacked, W[0])), (twice, (stacked, W))):
        assert_close(form(f)(*arguments), form(twin)(*arguments))


@pytest.mark.parametrize("method", METHODS)
def test_axis_size_only_and_spmd_axis_name(method):
    f = jax_callable(layer, vmap_method=method)
    found = jax.vmap(lambda: f(X[0], W[0]), axis_size=3)()
    assert_close(found, jnp.stack([twin(X[0], W[0])] * 3))
    assert_close(jax.vmap(f, spmd_axis_name="data")(X, W), twin(X, W))


@pytest.mark.parametrize(
    ("method", "calls", "shape"),
    [
        ("torch_vmap", 1, None),
        ("sequential", 4, (2, 3)),
        ("sequential_unrolled", 4, (2, 3)),
        ("expand_dims", 1, (4, 2, 3)),
        ("broadcast_all", 1, (4, 2, 3)),
    ],
)
def test_how_often_and_with_what_torch_is_called(method, calls, shape):
    seen = []

    def watched(x, w):
        seen.append((tuple(x.shape), tuple(w.shape)))
        return x @ w

    f = jax_callable(watched, vmap_method=method)
    jitted = jax.jit(jax.vmap(f, (0, None)))
    jitted(X, W[0])
    seen.clear()
    jitted(X, W[0]).block_until_ready()
    if shape is None:  # the captured graph, which runs no Python of the function
        assert seen == []
        return
    unmapped = {"expand_dims": (1, 3, 5), "broadcast_all": (4, 3, 5)}.get(method, (3, 5))
    assert seen == [(shape, unmapped)] * calls
    loops = jitted.lower(X, W[0]).as_text().count("stablehlo.while")
    assert loops == (1 if method == "sequential" else 0)


@BOTH
@pytest.mark.parametrize("method", METHODS)
def test_empty_batches(method, jit):
    f = jax_callable(layer, vmap_method=method, verify=True)

    def inside(g):
        return jax.vmap(jax.grad(lambda x, w: g(x, w).sum(), (0, 1)), (0, None))

    def outside(g):
        return jax.grad(lambda x, w: jax.vmap(g, (0, None))(x, w).sum(), (0, 1))

    for x in (X[:0], X[:, :0]):  # no elements, and elements of nothing
        for form in (lambda g: jax.vmap(g, (0, None)), inside, outside):
            found, wanted = jit(form(f))(x, W[0]), form(twin)(x, W[0])
            assert_close(found, wanted)


DTYPES = ("bool", "uint8", "int32", "float16", "bfloat16", "complex64")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_other_dtypes(method, dtype):
    values = rng.integers(0, 5, (4, 2, 3))
    x = jnp.asarray(values * 1j if dtype == "complex64" else values).astype(dtype)

    def both(x, y):
        return x * y, x != y

    f = jax_callable(both, vmap_method=method, verify=True)
    mapped = functools.partial(jax.vmap, in_axes=(0, None), out_axes=(1, 0))
    for found, wanted in zip(
        jax.jit(mapped(f))(x, x[0]), jax.jit(mapped(both))(x, x[0]), strict=True
    ):
        assert found.dtype == wanted.dtype
        assert_equal(found, wanted)


PAIRS = list(zip(METHODS, METHODS[2:] + METHODS[:2], strict=True))


@pytest.mark.parametrize(("outer", "inner"), PAIRS)
def test_functions_of_different_methods_in_one_nest(outer, inner):
    sine, cosine = (
        jax_callable(function, vmap_method=method, verify=True)
        for function, method in ((torch.sin, outer), (lambda x: torch.cos(x) * 2, inner))
    )

    def together(f, g):
        return lambda x: f(jax.vmap(g)(x)) + jax.vmap(f, 1, 1)(g(x))

    def gradient(f):
        return jax.vmap(jax.grad(lambda x: jax.vmap(f)(x).sum()))

    ours, theirs = together(sine, cosine), together(jnp.sin, lambda x: 2 * jnp.cos(x))
    stacked = jnp.stack([X, X + 1])
    for form in (jax.vmap, gradient):
        found, wanted = jax.jit(form(ours))(stacked), form(theirs)(stacked)
        assert_close(found, wanted)


@pytest.mark.parametrize("method", METHODS)
def test_trees_static_leaves_and_axes_of_each_leaf(method):
    def network(params, *, scale=1.0):
        hidden = params["x"] @ params["w"] * scale
        return {"hidden": hidden, "sums": params["x"].sum(-1)}

    f = jax_callable(network, vmap_method=method)
    params = {"x": X.transpose(1, 2, 0), "w": W[0]}
    mapped = functools.partial(
        jax.vmap, in_axes=({"x": 2, "w": None},), out_axes={"hidden": -1, "sums": 1}
    )
    found, wanted = (mapped(lambda params, g=g: g(params, scale=2.0))(params) for g in (f, network))
    assert_close(found, wanted)


@BOTH
@pytest.mark.parametrize("method", CLAIMS)
def test_a_false_claim_is_found_in_the_first_run(method, jit):
    wrong = jax_callable(lambda x: torch.softmax(x, 0), vmap_method=method, verify=True)
    kind = BatchingError if jit is not jax.jit else jax.errors.JaxRuntimeError
    with pytest.raises(kind, match=r"differs from single calls by up to .* Say `torch_vmap`"):
        jax.block_until_ready(jit(jax.vmap(wrong))(X[0]))
    # Without the comparison the wrong values pass, as with jax.pure_callback.
    trusting = jax_callable(lambda x: torch.softmax(x, 0), vmap_method=method)
    found = jit(jax.vmap(trusting))(X[0])
    assert_close(found, jax.nn.softmax(X[0], 0))


def test_a_verified_claim_is_compared_once():
    calls = []

    def doubled(x):
        calls.append(tuple(x.shape))
        return 2 * x

    f = jax.jit(jax.vmap(jax_callable(doubled, vmap_method="broadcast_all", verify=True)))
    f(X)
    calls.clear()
    f(X).block_until_ready()
    assert calls == [(4, 2, 3)]


@pytest.mark.parametrize("method", CLAIMS)
def test_results_without_the_batch_are_refused_when_tracing(method):
    summed = jax_callable(lambda x: x.sum(0), vmap_method=method)
    with pytest.raises(BatchingError, match=r"expected \[2\] for a batch, but torch returns \[3\]"):
        jax.eval_shape(jax.vmap(summed), X[0])
    flat = jax_callable(lambda x: x.t() @ x, vmap_method=method)
    with pytest.raises(BatchingError, match=r"on `x` float32\[4, 2, 3\] it fails: RuntimeError"):
        jax.vmap(flat)(X)
    # The message shows what the function got, which is not what it is called with.
    transposed = jax_callable(lambda x, y: x.t() @ y.t(), vmap_method=method)
    got = {"expand_dims": r"\[1, 5, 2\]", "broadcast_all": r"\[4, 5, 2\]"}[method]
    with pytest.raises(BatchingError, match=rf"`x` float32\[4, 2, 3\], `y` float32{got} it fails"):
        jax.vmap(transposed, (0, None))(X, jnp.ones((5, 2)))


@pytest.mark.parametrize("method", CLAIMS)
def test_a_claim_about_a_function_that_looks_at_values(method):
    def clipped(x):
        return x * 2 if bool((x.abs() < 100).all()) else x.sum()

    f = jax_callable(clipped, vmap_method=method, example=(X[0],))
    with pytest.warns(BridgeWarning, match="run once more"):
        assert_close(jax.vmap(f)(X), 2 * X)
    # The shape that comes back is compared in every run.
    with pytest.raises(Exception, match="planned float32"):
        jax.vmap(f)(1000 * X)

    def writing(x):
        if bool((x < 100).all()):
            x.mul_(2)
        return x + 1

    g = jax_callable(writing, vmap_method=method)
    before = np.array(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Exception, match="writes to"):
            jax.vmap(g)(X)
    assert_equal(X, before)


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_verify_needs_a_function_that_draws_nothing():
    f = jax_callable(
        lambda x: torch.nn.functional.dropout(x), vmap_method="broadcast_all", verify=True
    )
    with pytest.raises(BatchingError, match="draws random numbers"):
        jax.vmap(f)(X)


def test_what_torch_cannot_batch_goes_one_by_one_with_one_warning():
    def branching(x):
        return 2 * x if x.sum() > 0 else -x

    f = jax_callable(branching, example=(X[0],))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_close(jax.vmap(f)(X), jnp.where(X.sum((1, 2), keepdims=True) > 0, 2 * X, -X))
        jax.vmap(f)(X[:3])
        jax.jit(jax.vmap(f))(X[:2])
    told = [str(w.message) for w in caught if "for each element" in str(w.message)]
    assert len(told) == 1
    assert "could not be traced abstractly" in told[0]
    assert [w.filename for w in caught if "for each element" in str(w.message)] == [__file__]
    assert "batch of 4: one call an element" in f.explain(X[0])


def test_writing_to_what_is_not_batched_goes_one_by_one_with_one_warning():
    def summed(x, y):
        total = y.clone()  # of one element, whatever x is
        total.add_(x)
        return total * x

    f = jax_callable(summed)
    gradient = jax.grad(lambda x, y: f(x, y).sum(), (0, 1))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = jax.vmap(f, (0, None))(X, X[0])
        by_x, by_y = jax.vmap(gradient, (0, None))(X, X[0])
    assert_close(found, (X[0] + X) * X)
    assert_close(by_x, X[0] + 2 * X)
    assert_close(by_y, X)
    assert len([w for w in caught if "for each element" in str(w.message)]) == 1
    assert "batch of 4: one call an element: RuntimeError" in f.explain(X[0], X[0])


def test_results_that_do_not_lie_in_rows_are_batched_like_others():
    # A warning would say that the backward is called one by one.
    def powers(x):
        return (x * x * x).t(), (x * 2).expand(3, *x.shape)

    f = jax_callable(powers)

    def gradient(g):
        return jax.vmap(jax.grad(lambda x: sum((y**2).sum() for y in g(x))))

    def powers_twin(x):
        return (x * x * x).T, jnp.broadcast_to(x * 2, (3, *x.shape))

    assert_close(gradient(f)(X), gradient(powers_twin)(X))
    sine = jax_callable(torch.sin)
    nested = jax.vmap(jax.grad(lambda x: jax.vmap(jax.vmap(sine, 1, 1))(x).sum()))
    stacked = jnp.stack([X, X + 1])
    assert_close(jax.jit(nested)(stacked), jnp.cos(stacked))


def test_asked_for_loops_are_not_warned_about():
    f = jax_callable(lambda x: 2 * x if x.sum() > 0 else -x, vmap_method="sequential")
    f(X[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.vmap(f)(X)


def test_what_explain_says():
    for method, words in {
        "torch_vmap": "batch of 4: one call by torch.vmap",
        "sequential": "batch of 4: one call an element: `vmap_method: sequential`",
        "broadcast_all": "batch of 4: one call of the function as it stands",
    }.items():
        f = jax_callable(layer, vmap_method=method)
        assert f.plan(X[0], W[0]).vmap_method == method
        jax.vmap(f, (0, None))(X, W[0])
        text = f.explain(X[0], W[0])
        assert f"vmap         {method}: " in text
        assert words in text


CONTRACT = {
    "schema": "jaxtorch/1",
    "name": "layer",
    "version": "1.0.0",
    "inputs": {"x": "float32[n, k]", "w": "float32[k, m]"},
    "outputs": {"y": "float32[n, m]"},
}


def test_the_contract_says_it():
    f = jax_callable(layer, spec={**CONTRACT, "vmap_method": "broadcast_all", "verify": True})
    assert_close(jax.vmap(f)(X, W), twin(X, W))
    text = f.explain(X[0], W[0])
    assert "first compared with single calls" in text
    assert "no effect" not in text
    wrong = jax_callable(
        lambda x, w: torch.softmax(x, 0) @ w,
        spec={**CONTRACT, "vmap_method": "expand_dims", "verify": True},
    )
    with pytest.raises(BatchingError, match=r"layer@1\.0\.0"):
        jax.vmap(wrong)(X, W)


def test_what_is_refused():
    with pytest.raises(ArgumentError, match="expected vmap_method as one of torch_vmap, seq"):
        jax_callable(layer, vmap_method="parallel")
    with pytest.raises(ArgumentError, match=r"the contract says `vmap_method: sequential`.*one pl"):
        jax_callable(
            layer, spec={**CONTRACT, "vmap_method": "sequential"}, vmap_method="expand_dims"
        )
    with pytest.raises(SpecError, match="verify"):
        jax_callable(layer, spec={**CONTRACT, "verify": "sometimes"})


class TestCheckBatching:
    def test_right_claims_pass(self):
        for method in METHODS:
            check_batching(jax_callable(layer, vmap_method=method), X[0], W[0])

    def test_pytrees_static_leaves_and_integers(self):
        def embed(params, ids, *, scale=1.0):
            return {"rows": torch.nn.functional.embedding(ids, params["table"]) * scale}

        f = jax_callable(embed)
        ids = jnp.asarray([[0, 2], [1, 1]])
        check_batching(lambda p, i: f(p, i, scale=2.0), {"table": X[0]}, ids % 2)

    def test_torch_tensors_as_examples(self):
        check_batching(jax_callable(layer), torch.ones(2, 3), torch.ones(3, 2))

    def test_a_wrong_claim_names_argument_and_element(self):
        wrong = jax_callable(lambda x: torch.softmax(x, 0), vmap_method="broadcast_all")
        with pytest.raises(BatchingError, match=r"all arguments batched: element \d differs"):
            check_batching(wrong, X[0])

    def test_a_claim_that_holds_only_if_everything_is_batched(self):
        wrong = jax_callable(
            lambda x, y: x * y.flatten(-2)[..., None, :], vmap_method="expand_dims"
        )
        right_shapes = jnp.ones((2, 4)), jnp.ones((2, 2))
        check_batching(wrong, *right_shapes)
        summing = jax_callable(lambda x, y: x + 0 * y + y.shape[0], vmap_method="expand_dims")
        with pytest.raises(BatchingError, match=r"element \d differs"):
            check_batching(summing, jnp.ones((3, 2)), jnp.ones((3, 2)))

    def test_nan_on_one_side_is_a_difference(self):
        wrong = jax_callable(
            lambda x: x / (x.sum(0, keepdim=True) * 0 + float(x.ndim == 2)),
            vmap_method="broadcast_all",
        )
        with pytest.raises(BatchingError, match="differs"):
            check_batching(wrong, 0 * X[0])

    @pytest.mark.parametrize("scale", [1e-8, 1e8])
    def test_what_is_small_or_large_is_compared_by_its_own_measure(self, scale):
        right = jax_callable(lambda x: scale * torch.softmax(x, -1), vmap_method="broadcast_all")
        check_batching(right, X[0])
        wrong = jax_callable(lambda x: scale * torch.softmax(x, 0), vmap_method="broadcast_all")
        with pytest.raises(BatchingError, match="differs"):
            check_batching(wrong, X[0])
        verified = jax_callable(wrong.torch, vmap_method="broadcast_all", verify=True)
        with pytest.raises(BatchingError, match="differs"):
            jax.vmap(verified)(X[0])

    def test_bad_arguments(self):
        with pytest.raises(ValueError, match="at least one array"):
            check_batching(jax_callable(layer))
        with pytest.raises(ValueError, match="size of at least 2"):
            check_batching(jax_callable(layer), X[0], W[0], size=1)


def test_checkpoints_of_torch_in_a_batch():
    """They run again in the backward, where torch.vmap around the forward has ended."""

    def layer(x, w):
        inner = torch.utils.checkpoint.checkpoint(
            lambda x: (x.sin() * x).tanh(), x, use_reentrant=False
        )
        return inner * x * w

    x, w = jnp.linspace(-1, 1, 12).reshape(3, 4), jnp.linspace(0.5, 2, 4)
    twin = lambda x, w: jnp.tanh(jnp.sin(x) * x) * x * w  # noqa: E731
    wrapped = jax_callable(layer)

    def loss(f):
        return lambda x: jax.vmap(f, (0, None))(x, w).sum()

    with pytest.warns(BridgeWarning, match="once for each element .*torch.vmap cannot be gone"):
        found = jax.grad(loss(wrapped))(x)
    assert_close(found, jax.grad(loss(twin))(x))
    assert_close(jax.jit(jax.grad(loss(wrapped)))(x), jax.grad(loss(twin))(x))
    assert_close(jax.hessian(loss(wrapped))(x), jax.hessian(loss(twin))(x))
    twice = lambda f: lambda x: jax.vmap(loss(f))(jnp.stack([x, -x])).sum()  # noqa: E731
    assert_close(jax.grad(twice(wrapped))(x), jax.grad(twice(twin))(x))
    # Nothing else goes one by one.
    assert "batch of 3: one call by torch.vmap" in wrapped.explain(x[0], w)
