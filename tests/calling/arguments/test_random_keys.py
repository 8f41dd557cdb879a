"""Randomness by a JAX key: a call is a pure function of its arguments and the key."""

from __future__ import annotations

import re
import threading
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
    RandomnessError,
    jax_callable,
)

F = torch.nn.functional
KEY, OTHER = jax.random.key(0), jax.random.key(1)
X = jnp.linspace(1.0, 3.0, 40)
W = jnp.linspace(1.0, 2.0, 40)


class Shift(torch.autograd.Function):
    """Old style, so that only autograd can differentiate what uses it."""

    @staticmethod
    def forward(ctx, x):
        return x + 0

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def dropout(x):
    return F.dropout(x, 0.5)


def drop_path(x):
    return torch.where(torch.rand(x.shape) < 0.5, x * 2, torch.zeros(()))


def noise(x):
    return x * torch.randn_like(x)


def looks_at_values(x):
    assert bool(torch.isfinite(x).all())
    return F.dropout(x, 0.5)


FUNCTIONS = {
    "dropout": (dropout, "auto", "tape"),
    "drop_path": (drop_path, "auto", "tape"),
    "noise": (noise, "auto", "tape"),
    "dropout_func": (dropout, "recompute", "func"),
    "noise_func": (noise, "recompute", "func"),
    "dropout_autograd": (lambda x: Shift.apply(F.dropout(x, 0.5)), "recompute", "autograd"),
    "looks_at_values": (looks_at_values, "auto", "tape"),
}


def contract(residuals="auto", **more):
    return {
        "schema": "jaxtorch/1", "name": "noisy", "version": "1.0.0", "residuals": residuals,
        "inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"}, "random": "key", **more,
    }  # fmt: skip


# The engine of autograd cannot be batched by torch.vmap; looks_at_values is seen by running it.
pytestmark = [
    pytest.mark.derivatives,
    pytest.mark.filterwarnings("ignore:.*calls torch once for each element"),
    pytest.mark.filterwarnings("ignore:.*could not be found abstractly"),
]


@pytest.fixture(params=FUNCTIONS)
def linear(request):
    """A function ``y = mask(key) * x``."""
    function, residuals, engine = FUNCTIONS[request.param]
    wrapped = jax_callable(function, spec=contract(residuals))
    op = wrapped._planned((X,), {"rng": KEY}).op
    assert op.family.linearize(op, (0,)).engine == engine
    return wrapped


@pytest.fixture(autouse=True)
def generator_stays():
    """No call moves torch's own generator."""
    torch.manual_seed(3)
    torch.rand(2)
    before = torch.get_rng_state()
    yield
    assert_equal(before, torch.get_rng_state())


def mask_of(y, x=X):
    mask = np.asarray(y) / np.asarray(x)
    assert np.unique(mask.round(3)).size > 5 or set(np.unique(mask)) == {0.0, 2.0}
    return mask


# --- one key, one result -------------------------------------------------------------------------


def test_a_key_decides_the_result_however_it_is_called(linear):
    y = linear(X, rng=KEY)
    mask_of(y)
    assert_equal(linear(X, rng=KEY), y)
    assert_equal(jax.jit(linear)(X, rng=KEY), y)
    assert_equal(jax.jit(lambda k: linear(X, rng=k))(KEY), y)
    assert_equal(linear(X, rng=jax.random.PRNGKey(0)), y)
    with jax.disable_jit():
        assert_equal(linear(X, rng=KEY), y)
    assert (linear(X, rng=OTHER) != y).any()
    again = jax_callable(linear.torch, spec=linear.spec)
    assert_equal(again(X, rng=KEY), y)


def test_equal_calls_with_different_keys_stay_two(linear):
    a, b = jax.jit(lambda x, a, b: (linear(x, rng=a), linear(x, rng=b)))(X, KEY, OTHER)
    assert (a != b).any()
    assert_equal(a, linear(X, rng=KEY))
    assert_equal(b, linear(X, rng=OTHER))


def test_keys_that_differ_in_any_word_draw_other_numbers():
    f = jax_callable(lambda: torch.rand(4), random="key")
    words = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2**31), (2**31, 0), (2**32 - 1, 2**32 - 1)]
    drawn = {tuple(np.asarray(f(rng=jnp.asarray(w, jnp.uint32))).tolist()) for w in words}
    assert len(drawn) == len(words)
    rbg = jax.random.key(0, impl="rbg")
    assert_equal(f(rng=rbg), f(rng=jax.random.key_data(rbg)))
    four = [jnp.asarray(w, jnp.uint32) for w in [(0, 0, 0, 1), (0, 1, 0, 0), (1, 0, 0, 0)]]
    assert len({tuple(np.asarray(f(rng=w)).tolist()) for w in four}) == 3


def test_numbers_drawn_from_split_keys_are_uniform_and_uncorrelated():
    f = jax_callable(lambda: torch.rand(3), random="key")
    drawn = np.asarray(jax.vmap(lambda k: f(rng=k))(jax.random.split(KEY, 2000)))
    assert np.abs(drawn.mean(0) - 0.5).max() < 0.03
    assert np.abs(drawn.var(0) - 1 / 12).max() < 0.01
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.1
    assert np.abs(np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]) < 0.1


def test_another_process_draws_the_same(run_python):
    script = """
import jax, jax.numpy as jnp, torch
from jaxtorch_bridge import jax_callable
torch.manual_seed({seed})
f = jax_callable(lambda x: torch.nn.functional.dropout(x) + torch.randn(5), random="key")
print(jax.jit(f)(jnp.ones(5), rng=jax.random.key(7)).tolist())
"""
    f = jax_callable(lambda x: F.dropout(x) + torch.randn(5), random="key")
    here = str(f(jnp.ones(5), rng=jax.random.key(7)).tolist())
    assert {run_python(script.format(seed=seed)).strip() for seed in (1, 2)} == {here}


# --- derivatives ---------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_derivatives_see_the_mask_of_the_call(linear, jit):
    mask = mask_of(linear(X, rng=KEY))
    maybe = jax.jit if jit else lambda f: f

    def loss(x, key):
        y = linear(x, rng=key)
        return (y * W).sum(), y

    (_, y), gradient = maybe(jax.value_and_grad(loss, has_aux=True))(X, KEY)
    assert_equal(y, mask * X)
    assert_close(gradient, mask * W)
    gradient, _ = maybe(jax.grad(jax.checkpoint(loss), has_aux=True))(X, KEY)
    assert_close(gradient, mask * W)
    y, moved = maybe(lambda x, v, k: jax.jvp(lambda x: linear(x, rng=k), (x,), (v,)))(X, W, KEY)
    assert_equal(y, mask * X)
    assert_close(moved, mask * W)


def test_second_order_sees_the_mask_of_the_call(linear):
    x = X[:20]
    mask = mask_of(linear(x, rng=KEY), x)
    f = lambda x: (linear(x, rng=KEY) ** 3).sum()  # noqa: E731
    wanted = np.diag(6 * mask**3 * np.asarray(x))
    assert_close(jax.hessian(f)(x), wanted)
    assert_close(jax.jacrev(jax.grad(f))(x), wanted)


def test_inside_scan_and_checkpoint_each_step_has_its_keys_mask(linear):
    keys = jax.random.split(KEY, 3)

    def loss(x):
        def step(carry, key):
            y = linear(x, rng=key)
            return carry + (y * W).sum(), y

        return jax.lax.scan(jax.checkpoint(step), 0.0, keys)

    gradient, ys = jax.jit(jax.grad(loss, has_aux=True))(X)
    masks = np.stack([mask_of(linear(X, rng=key)) for key in keys])
    assert_equal(ys, masks * np.asarray(X))
    assert_close(gradient, masks.sum(0) * W)
    assert (masks[0] != masks[1]).any()


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("batched", ["keys", "both", "x"])
def test_a_batch_is_the_calls_one_by_one(linear, batched, jit):
    keys = jax.random.split(KEY, 3) if batched != "x" else KEY
    xs = jnp.stack([X, 2 * X, 3 * X]) if batched != "keys" else X
    axes = {"keys": (None, 0), "both": (0, 0), "x": (0, None)}[batched]

    def run(x, key):
        def loss(x):
            y = linear(x, rng=key)
            return (y * W).sum(), y

        return jax.grad(loss, has_aux=True)(x)

    call = jax.vmap(run, axes)
    gradient, y = (jax.jit(call) if jit else call)(xs, keys)
    rows = [xs[i] if batched != "keys" else X for i in range(3)]
    each = [keys[i] if batched != "x" else KEY for i in range(3)]
    masks = [mask_of(linear(x, rng=k), x) for x, k in zip(rows, each, strict=True)]
    assert_equal(y, np.stack(masks) * np.asarray(rows))
    assert_close(gradient, np.stack(masks) * W)
    assert (masks[0] != masks[1]).any() == (batched != "x")


RANDOM = {
    "rand": lambda x: x + torch.rand(4, 6),
    "rand_like": lambda x: x + torch.rand_like(x),
    "uniform_": lambda x: x + torch.empty(4, 6).uniform_(),
    "uniform_like_": lambda x: x + torch.empty_like(x).uniform_(),
    "normal_": lambda x: x + torch.zeros_like(x).normal_(),
    "exponential_": lambda x: x * torch.empty_like(x).exponential_(),
    "bernoulli": lambda x: x * torch.bernoulli(torch.full((4, 6), 0.5)),
    "bernoulli_of_x": lambda x: x * torch.bernoulli(torch.sigmoid(x)),
    "bernoulli_": lambda x: x * torch.empty_like(x).bernoulli_(0.5),
    "poisson_of_x": lambda x: x * torch.poisson(x.abs()),
    "normal_of_x": lambda x: torch.normal(x, 1.0),
    "multinomial_of_x": lambda x: x[:, torch.multinomial(x[0].abs(), 3)],
    "randperm": lambda x: x[torch.randperm(4)],
    "randint": lambda x: x * torch.randint(0, 5, (4, 6)),
    "gumbel": lambda x: F.gumbel_softmax(x, tau=0.5),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "dropout": lambda x: F.dropout(x, 0.3) + F.dropout(2 * x, 0.3),
    "dropout_": lambda x: F.dropout(x + 1, 0.3, inplace=True),
    "alpha_dropout": lambda x: F.alpha_dropout(x, 0.3, training=True),
    "feature_dropout": lambda x: F.dropout1d(x, 0.5),
    "transposed": lambda x: x.t() + torch.rand_like(x.t()),
    "transposed_dropout": lambda x: F.dropout(x.t(), 0.5),
    "transposed_normal_": lambda x: torch.empty_like(x.t()).normal_() * x.t(),
    "attention": lambda x: F.scaled_dot_product_attention(
        x[None, None], x[None, None], x[None, None], dropout_p=0.5
    )[0, 0],
    "vmapped": lambda x: torch.vmap(lambda r: r * torch.rand(6), randomness="different")(x),
    "vmapped_same": lambda x: torch.vmap(lambda r: r * torch.rand(6), randomness="same")(x),
}  # fmt: skip


@pytest.mark.parametrize(("name", "axis"), [(name, i % 3) for i, name in enumerate(RANDOM)])
def test_one_key_means_one_draw_for_a_whole_batch(name, axis):
    f = jax_callable(RANDOM[name], random="key")
    xs = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 6)), jnp.float32)
    wanted = jnp.stack([f(x, rng=KEY) for x in xs])
    found = jax.vmap(lambda x: f(x, rng=KEY), axis)(jnp.moveaxis(xs, 0, axis))
    assert_close(found, wanted)

    def slope(x):
        return jax.grad(lambda x: (f(x, rng=KEY) ** 2).sum())(x)

    wanted = jnp.stack([slope(x) for x in xs])
    found = jax.vmap(slope, axis)(jnp.moveaxis(xs, 0, axis))
    assert_close(found, wanted)
    value, _ = jax.vjp(lambda x: f(x, rng=KEY), xs[0])
    assert_close(value, f(xs[0], rng=KEY))
    assert_close(jax.jvp(lambda x: f(x, rng=KEY), (xs[0],), (xs[1],))[0], value)


@pytest.mark.parametrize("method", ["expand_dims", "broadcast_all"])
def test_a_claim_on_whole_batches_is_refused_where_one_draw_is_shared(method):
    f = jax_callable(dropout, random="key", vmap_method=method)
    with pytest.raises(BatchingError, match="one key means one draw, shared by all elements"):
        jax.vmap(lambda x: f(x, rng=KEY))(jnp.stack([X, X]))
    keys = jax.random.split(KEY)
    found = jax.vmap(lambda k: f(X, rng=k))(keys)
    assert_equal(found, jnp.stack([f(X, rng=key) for key in keys]))
    plain = jax_callable(torch.sin, random="key", vmap_method=method)
    assert_close(jax.vmap(lambda x: plain(x, rng=KEY))(X), jnp.sin(X))


@pytest.mark.parametrize("name", ["rand", "rand_like", "normal_", "exponential_", "dropout"])
def test_results_written_in_place_are_drawn_alike(name):
    spec = {
        "schema": "jaxtorch/1", "name": "f", "version": "1.0.0", "random": "key",
        "inputs": {"x": "float32[4, 6]"}, "outputs": {"y": "float32[4, 6]"},
    }  # fmt: skip
    copied = jax_callable(RANDOM[name], spec=spec | {"execution": {"outputs": "copy"}})
    execution = {"backend": "graph", "outputs": "in_place"}
    placed = jax_callable(RANDOM[name], spec=spec | {"execution": execution})
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 6)), jnp.float32)
    wanted = copied(x, rng=KEY)
    assert_equal(placed(x, rng=KEY), wanted)
    graph = jax_callable(RANDOM[name], spec=spec | {"execution": {"backend": "graph"}})
    assert_equal(graph(x, rng=KEY), wanted)
    assert_equal(jax.vjp(lambda x: placed(x, rng=KEY), x)[0], wanted)


# --- what the key reaches ------------------------------------------------------------------------


def test_seeding_holds_for_the_call_only_and_is_put_back_after_a_failure():
    f = jax_callable(lambda x, n: x + torch.rand(n), random="key")
    with pytest.raises(Exception, match="must match the size"):
        f(jnp.ones(3), 4, rng=KEY)
    module = torch.nn.Sequential(torch.nn.Dropout(0.5))
    g = jax_callable(module, random="key")
    y = g(jnp.ones(3), rng=KEY)
    assert_equal(g(jnp.ones(3), rng=KEY), y)
    module.eval()
    assert_equal(g(jnp.ones(3), rng=KEY), g(jnp.ones(3), rng=OTHER))
    assert "seen to draw nothing" in g.explain(jnp.ones(3), rng=KEY)


def test_calls_on_many_threads_do_not_mix():
    f = jax_callable(lambda x: sum(x * torch.randn(200) for _ in range(20)), random="key")
    keys = list(jax.random.split(KEY, 4))
    wanted = [np.asarray(f(jnp.ones(200), rng=key)) for key in keys]
    wrong = []

    def work(number):
        for _ in range(30):
            if (np.asarray(f(jnp.ones(200), rng=keys[number])) != wanted[number]).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_generator_that_the_key_does_not_reach_is_an_error():
    generator = torch.Generator().manual_seed(0)
    f = jax_callable(lambda x: x + torch.rand(3, generator=generator), random="key")
    with pytest.raises(RandomnessError, match="leave `generator=` out"):
        f(jnp.ones(3), rng=KEY)
    g = jax_callable(lambda x: x + torch.rand(3, generator=torch.default_generator), random="key")
    assert (g(jnp.ones(3), rng=KEY) != g(jnp.ones(3), rng=OTHER)).any()


# --- passing the key -----------------------------------------------------------------------------


def test_without_a_contract_a_call_may_have_a_key():
    f = jax_callable(dropout)
    assert_equal(f(X, rng=KEY), jax.jit(f)(X, rng=KEY))
    assert "a key as `rng`" in f.explain(X, rng=KEY)
    named = jax_callable(lambda x, rng: x + rng)
    assert_equal(named(X, rng=X), 2 * X)
    anything = jax_callable(lambda x, **rest: x + rest["rng"])
    assert_equal(anything(X, rng=X), 2 * X)


def test_the_key_may_be_a_shape_when_planning_and_a_numpy_array_when_calling():
    f = jax_callable(dropout, random="key")
    typed = jax.eval_shape(lambda: KEY)
    raw = np.asarray(jax.random.key_data(KEY))
    assert f.plan(jax.ShapeDtypeStruct(X.shape, X.dtype), rng=typed) == f.plan(X, rng=raw)
    assert_equal(f(X, rng=raw), f(X, rng=KEY))
    assert (
        f.plan(X, rng=KEY).digest
        != jax_callable(dropout, random="key").plan(X, rng=jax.random.key(0, impl="rbg")).digest
    )


@pytest.mark.parametrize(
    ("rng", "match"),
    [
        (0, "expected one JAX key, such as jax.random.key(0); got builtins.int"),
        (torch.Generator(), "got torch._C.Generator. The key must be JAX's"),
        (jnp.ones(2), "got float32[2]"),
        (jnp.zeros(3, jnp.uint32), "got uint32[3]"),
        (jnp.zeros((5, 2), jnp.uint32), "got uint32[5, 2]. Call under jax.vmap"),
        (jax.random.split(KEY), "got keys of shape [2]. Call under jax.vmap"),
    ],
)
def test_what_is_no_key_is_an_error(rng, match):
    f = jax_callable(dropout, random="key")
    for call in (f, f.plan):
        with pytest.raises(ArgumentError, match=re.escape(match)):
            call(X, rng=rng)
    f(X, rng=KEY)
    with pytest.raises(ArgumentError, match=re.escape(match)):
        f(X, rng=rng)


def test_a_key_is_asked_for_and_is_for_jax_only():
    f = jax_callable(dropout, spec=contract())
    for call in (f, f.plan, jax.jit(f)):
        with pytest.raises(ArgumentError, match=r"expected a random key.*Pass rng="):
            call(X)
    tensor = torch.ones(40)
    torch_state = torch.get_rng_state()
    assert f(tensor).shape == (40,)
    torch.set_rng_state(torch_state)
    with pytest.raises(ArgumentError, match="in calls on JAX arrays only"):
        f(tensor, rng=KEY)
    with pytest.raises(ArgumentError, match="has a parameter `rng` itself"):
        jax_callable(lambda x, rng: x, random="key")
    with pytest.raises(ArgumentError, match="expected random as one of none, key"):
        jax_callable(dropout, random="yes")
    with pytest.raises(ArgumentError, match="random='none' was passed, but the contract says"):
        jax_callable(dropout, spec=contract(), random="none")


# --- randomness that nothing declares ------------------------------------------------------------


GENERATOR = torch.Generator().manual_seed(0)


@pytest.mark.parametrize(
    ("function", "warned"),
    [
        (dropout, True),
        (lambda x: x + torch.rand(40, generator=GENERATOR), True),
        (looks_at_values, True),
        (lambda x: F.dropout(x, 0.5, training=False), False),
        (lambda x: F.dropout(x, 0.0), False),
        (lambda x: x + torch.rand(40, generator=torch.Generator().manual_seed(0)), False),
    ],
)
def test_undeclared_randomness_is_warned_about_once(function, warned):
    state = torch.get_rng_state()
    f = jax_callable(function)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        f(X)
        jax.jit(f)(X)
        f(X[:3] if function is dropout else X)
    torch.set_rng_state(state)
    told = [w for w in caught if "draws random numbers" in str(w.message)]
    assert len(told) == warned
    for one in told:
        assert one.category is BridgeWarning
        assert one.filename == __file__
        assert "rng=jax.random.key(0)" in str(one.message)


def test_undeclared_randomness_shows_in_the_first_run_of_what_only_a_contract_describes():
    spec = contract()
    del spec["random"]
    f = jax_callable(looks_at_values, spec=spec)
    state = torch.get_rng_state()
    with pytest.warns(BridgeWarning, match="draws random numbers, and nothing declares them"):
        jax.jit(f)(X).block_until_ready()
    torch.set_rng_state(state)


def test_shards_do_not_share_one_key(run_python):
    run_python(
        """
import jax, jax.numpy as jnp, pytest, torch
from comparing import assert_close
from jaxtorch_bridge import ShardingError, jax_callable
mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
spec = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0", "inputs": {"input": "float32[n]"},
        "outputs": {"y": "float32[n]"}, "random": "key", "sharding": {"n": "data"}}
f = jax_callable(torch.nn.functional.dropout, spec=spec)
g = jax_callable(lambda input: torch.sin(input), spec=spec)
key = jax.random.key(0)
with jax.sharding.set_mesh(mesh):
    x = jax.device_put(jnp.ones(8), jax.P("data"))
    with pytest.raises(ShardingError, match="fold_in"):
        f(x, rng=key)
    assert_close(g(x, rng=key), float(jnp.sin(1.0)))
    own = lambda x, k: f(x, rng=jax.random.fold_in(k, jax.lax.axis_index("data")))
    y = jax.shard_map(own, in_specs=(jax.P("data"), jax.P()), out_specs=jax.P("data"))(x, key)
assert set(y.tolist()) == {0.0, 2.0}
""",
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    )
