"""Results whose sizes follow from values: never guessed, never dropped."""

import functools
import warnings

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import j2t, jax_callable
from jaxtorch_bridge.errors import (
    BridgeWarning,
    DynamicSizeError,
    OutputError,
    TorchExecutionError,
)

X = jnp.array([1.0, -2.0, 3.0, 4.0])

# JAX 0.10 raises a failing call of an executable that it knows as a ValueError.
FAILURES = (jax.errors.JaxRuntimeError, ValueError)
DYNAMIC = {
    "boolean index": lambda x: x[x > 0],
    "nonzero": torch.nonzero,
    "unique": torch.unique,
    "unique with counts": lambda x: torch.unique(x, return_counts=True),
    "masked_select": lambda x: torch.masked_select(x, x > 1),
    "argwhere": torch.argwhere,
    "where": lambda x: torch.where(x > 0),
    "repeat_interleave": lambda x: torch.repeat_interleave(x, x.abs().int()),
    "bincount": lambda x: torch.bincount(x.abs().long()),
    "slice": lambda x: x[: int(x[0])],
    "zeros": lambda x: torch.zeros(int(x[0].item())),
    "arange": lambda x: torch.arange(int(x[2])),
    "linspace": lambda x: torch.linspace(0, 1, int(x[2])),
    "one_hot": lambda x: torch.nn.functional.one_hot(x.abs().long()),
    "pad": lambda x: torch.nn.functional.pad(x, (0, int(x[0]))),
    "beside a fixed one": lambda x: (x * 2, x[x > 0]),
    "in a dict": lambda x: {"kept": [x[x > 0]], "count": (x > 0).sum()},
    "two sizes": lambda x: (x[x > 0], x[x < 0]),
    "after a step": lambda x: (x[x > 0] * 2).reshape(-1, 1),
}


def narrow(value):
    """As JAX holds it: without 64 bits."""
    leaves = jax.tree.leaves(value)
    return [leaf.int() if leaf.dtype == torch.int64 else leaf for leaf in leaves]


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.errors.BridgeWarning")
@pytest.mark.parametrize("function", DYNAMIC.values(), ids=DYNAMIC.keys())
def test_each_eager_call_has_the_sizes_that_it_has(function):
    f = jax_callable(function)
    # The first selects little or nothing.
    for x in (X * jnp.array([1, 1, 0.25, 0]), X, X[::-1] * X[::-1], X):
        want = narrow(function(torch.tensor(x.tolist())))
        found = jax.tree.leaves(f(x))
        assert [leaf.shape for leaf in found] == [tuple(leaf.shape) for leaf in want]
        for one, other in zip(found, want, strict=True):
            assert_close(one, other)


@pytest.mark.filterwarnings("ignore::jaxtorch_bridge.errors.BridgeWarning")
@pytest.mark.parametrize("function", DYNAMIC.values(), ids=DYNAMIC.keys())
@pytest.mark.parametrize("after", [False, True], ids=["first", "after an eager call"])
def test_no_transformation_guesses_them(function, after):
    f = jax_callable(function)
    if after:
        f(X * X)
        f(X * X + 1)
    batched = lambda x: jax.vmap(f)(x[None])  # noqa: E731
    for way in (jax.jit(f), batched, lambda x: jax.eval_shape(f, x), jax.make_jaxpr(f)):
        with pytest.raises(DynamicSizeError, match="outside of it"):
            way(X)
    with pytest.raises(DynamicSizeError):
        jax.jit(lambda x: jax.tree.leaves(f(x))[-1].sum())(X)


def test_the_error_says_where_and_what_to_write():
    f = jax_callable(lambda x: (x, x[x > 0]))
    with pytest.raises(DynamicSizeError) as caught:
        jax.jit(f)(X)
    text = str(caught.value)
    assert "output 1: float32[?]" in text
    assert "aten.nonzero" in text
    assert "test_dynamic_sizes.py" in text
    assert "torch.where(mask, x, 0)" in text
    assert "sizes follow from values" in f.explain(X)
    assert f.plan(X).outputs[1].shape == (3,)
    # Also once a call has run: by then nothing evaluates it anew.
    f(X)
    with pytest.raises(DynamicSizeError, match=r"output 1: float32\[\?\]"):
        jax.jit(f)(X)


def test_eager_gradients_as_those_of_jax():
    f = jax_callable(lambda x: x[x > 0])
    twin = lambda x: x[x > 0]  # noqa: E731
    for x in (-X, X, X * X, -X * X):
        for g in (f, twin):
            assert g(x).shape == twin(x).shape
        assert_close(
            jax.grad(lambda x: (f(x) ** 2).sum())(x), jax.grad(lambda x: (twin(x) ** 2).sum())(x)
        )
        _, pulled = jax.vjp(f, x)
        assert_close(pulled(2 * twin(x))[0], jnp.where(x > 0, 2 * x, 0))


def test_a_first_call_that_selects_nothing_decides_nothing():
    g = jax_callable(lambda b, s: b[s > 0.5])
    b = jnp.arange(12.0).reshape(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert g(b, jnp.array([0.1, 0.1, 0.1])).shape == (0, 4)
        assert_equal(g(b, jnp.array([0.9, 0.1, 0.8])), b[jnp.array([0, 2])])


def test_sizes_inside_alone_are_no_hindrance():
    f = jax_callable(lambda x: x[x > 0].sum())
    twin = lambda x: jnp.where(x > 0, x, 0).sum()  # noqa: E731
    with warnings.catch_warnings():
        warnings.simplefilter("error", BridgeWarning)
        assert_close(jax.jit(f)(X), twin(X))
    both = jnp.stack([X, -X])
    assert_close(f(-X), twin(-X))
    assert_close(jax.jit(jax.grad(f))(X), jax.grad(twin)(X))
    with pytest.warns(BridgeWarning, match="once for each element"):
        slopes = jax.jit(jax.vmap(jax.grad(f)))(both)
    assert_close(slopes, jax.vmap(jax.grad(twin))(both))
    assert "with symbols for the values" in f.explain(X)
    assert f.plan(X).inference.extra_runs == 0


def test_results_of_another_structure():
    def f(x):
        return x[:2] if x.sum() > 0 else [x, x]

    g = jax_callable(f)
    assert_equal(g(X), X[:2])
    assert [leaf.shape for leaf in g(-X)] == [(4,), (4,)]
    assert_equal(g(X), X[:2])
    with pytest.raises(DynamicSizeError, match="two calls with these shapes"):
        jax.jit(g)(X)


def test_what_a_contract_declares_is_not_given_up():
    contract = {
        "schema": "jaxtorch/1",
        "name": "kept",
        "version": "1.0.0",
        "inputs": {"x": "float32[n]"},
        "outputs": {"y": "float32[2]"},
    }
    f = jax_callable(lambda x: x[x > 0], spec=contract)
    with pytest.raises((OutputError, TypeError), match="kept"):
        f(X)
    assert_equal(jax.jit(f)(X - 1.5), X[2:] - 1.5)
    with pytest.raises(FAILURES, match="planned float32"):
        jax.block_until_ready(jax.jit(f)(X))


def test_calls_whose_results_are_all_empty_are_made():
    def check(x):
        if x.sum() > 5:
            raise ValueError("checked")
        return x[:0]

    f = jax_callable(check, example=(torch.zeros(4),))
    with pytest.warns(BridgeWarning, match="example"):
        g = jax.jit(f).lower(X).compile()
    assert g(X * 0).shape == (0,)
    with pytest.raises(FAILURES, match="checked"):
        jax.block_until_ready(g(X * X))
    with pytest.raises(FAILURES, match="checked"):
        # Also as a step of a program, and where the gradient is all that is asked for.
        jax.block_until_ready(jax.jit(lambda x: f(2 * x).sum())(X * X))


# Torch's compiler turns the checks of distributions off for good.
Normal, Bernoulli, OneHot, MultivariateNormal = (
    functools.partial(getattr(torch.distributions, name), validate_args=True)
    for name in ("Normal", "Bernoulli", "OneHotCategorical", "MultivariateNormal")
)


@pytest.mark.parametrize(
    ("function", "arguments", "values"),
    [
        (
            lambda m, s: Normal(m, s).log_prob(m + 1),
            (0.0, 1.0),
            "ones",
        ),
        (
            lambda p: Bernoulli(p).entropy(),
            (jnp.full(3, 0.5),),
            "ones and on increasing numbers up to one",
        ),
        (
            lambda c: MultivariateNormal(torch.zeros(2), c).entropy(),
            (jnp.eye(2),),
            "identity matrices",
        ),
        (
            lambda p: OneHot(p).log_prob(p),
            (jnp.array([0.0, 1.0]),),
            "one-hot",
        ),
    ],
)
def test_what_a_function_that_looks_at_values_is_tried_on(function, arguments, values):
    f = jax_callable(function)
    with pytest.warns(BridgeWarning, match=values):
        found = jax.jit(f)(*arguments)
    assert_close(found, function(*(torch.tensor(jnp.asarray(a).tolist()) for a in arguments)))


def test_a_call_inside_that_differs_is_not_taken_for_the_function_itself():
    inner = jax_callable(
        lambda x: x[:2] if bool(x.sum() > 0) else x, name="inner", example=(torch.ones(4),)
    )

    def outer(x):
        assert float(x.abs().sum()) >= 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            j2t(jax.block_until_ready(jax.jit(inner)(jnp.asarray(x.numpy()))))
        return x * 2

    f = jax_callable(outer, name="outer")
    assert_close(f(X * X), 2 * X * X)
    with pytest.raises(Exception, match="inner"):
        f(-X * X)
    # The sizes of its own results are as they were.
    assert not next(iter(f._ways))._of_values


def test_what_a_class_would_keep_of_an_evaluation_is_taken_back():
    class Cached:
        table = None

    def f(x):
        total = x[x > 0].sum()
        if Cached.table is None:
            Cached.table = torch.ones(3)
        return total + Cached.table.sum()

    for call in (jax.jit(jax_callable(f)), jax_callable(f)):
        Cached.table = None
        assert_close(call(X), 11.0)
        assert type(Cached.table) is torch.Tensor
        assert_close(call(X), 11.0)


# --- calls without arrays -------------------------------------------------------------------------


def test_a_call_that_gave_no_arrays_says_nothing_of_the_next():
    chosen = jax_callable(lambda x: [v for v in x if v > 0])
    assert chosen(-jnp.ones(3)) == []
    assert_equal(chosen(X), [v for v in X if v > 0])
    assert chosen(-jnp.ones(3)) == []
    maybe = jax_callable(lambda x: None if x.sum() < 0 else x)
    assert maybe(-jnp.ones(3)) is None
    assert_equal(maybe(jnp.ones(3)), jnp.ones(3))


def test_calls_without_results_are_made_eagerly():
    total, seen = torch.zeros(4), []

    def check(x):
        seen.append(float(x.sum()))
        if not torch.isfinite(x).all():
            raise ValueError("not finite")

    added, checked = jax_callable(lambda x: [total.add_(x)][:0]), jax_callable(check)
    for count in range(1, 4):
        assert added(jnp.ones(4)) == []
        assert_equal(total, torch.full((4,), float(count)))
        assert checked(jnp.ones(4)) is None
        assert len(seen) == count
    with pytest.raises(TorchExecutionError, match="not finite"):
        checked(jnp.full(4, jnp.nan))


def test_a_program_says_that_it_drops_calls_without_results():
    total = torch.zeros(4)
    added = jax_callable(lambda x: [total.add_(x)][:0])
    with pytest.warns(BridgeWarning, match="returns no arrays"):
        jax.jit(added)(jnp.ones(4))
