"""Backend ``xla`` on functions in which sizes follow from values: padded, and masked where needed.

The reference is torch itself on the arrays that are really there, among them none and all.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.errors import PlanningError, TorchExecutionError

ONE_BY_ONE = pytest.mark.filterwarnings("ignore:.*calls torch once for each element")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 4)).astype(np.float32)
X[:, 0] = [1.5, -0.5, 0.25, 2.0, -1.0, 0.75]
NONE, ALL = -np.abs(X), np.abs(X)
INPUTS = {"some": X, "none": NONE, "all": ALL}


def weights():
    return torch.linspace(-1, 1, 12).reshape(4, 3)


def rows(x):
    return x[x[:, 0] > 0]


def segments(x):
    kept = rows(x)
    places = (x[:, 1] > 0).nonzero()[:, 0]
    chosen = x[places]
    return kept.sum(0), chosen.sum(0), torch.zeros(6).index_add(0, places, chosen[:, 2].exp())


def two_masks(x):
    first, second = x[x[:, 0] > 0], x[x[:, 1] > 0]
    return torch.cat([first, second]).pow(2).sum(0), torch.cat([x, first, second]).sum()


def alike_masks(x):
    """Two masks that are computed alike choose alike."""
    return (x[x[:, 0] > 0] * (2 * x)[x[:, 0] > 0].sinh()).sum()


def in_order(x):
    kept = rows(x)
    order = kept[:, 1].argsort(descending=True)
    weights = torch.arange(kept.shape[0], dtype=x.dtype)
    return (kept[order] * weights[:, None]).sum(0)


def attention(x):
    kept = rows(x)[None]
    return F.scaled_dot_product_attention(kept, kept, kept).sum(1)


def pairs(x):
    kept = rows(x)
    return (kept[:, None] - kept[None]).pow(2).sum(), (kept @ kept.T).exp().sum()


def layers(x):
    kept = F.layer_norm(rows(x), (4,))
    return F.gelu(F.linear(kept, weights().T, weights()[0])).sum(0), (kept @ weights()).sum(0)


def reshaped(x):
    kept = rows(x)
    flat, split = kept.reshape(-1), kept.view(-1, 2, 2)
    return (
        flat.sum(),
        split.prod(0),
        kept.T.sum(1),
        kept[:, 1:3].sum(0),
        kept.flip(0).cumsum(0).sum(),
    )


def written(x):
    """Into a tensor of its own."""
    made = torch.zeros(6, 4)
    mask = x[:, 0] > 0
    made[mask] = 2 * x[mask]
    made[mask] += 1
    places = mask.nonzero()[:, 0]
    return made, made.index_put((places,), x[places, :].cos(), accumulate=True)


def counted(x):
    kept = rows(x)
    return kept.sum() / (kept.shape[0] + 1), x * kept.shape[0], x[0] * kept.numel()


def elements(x):
    return x[x > 0].sum(), (x[x > 0.5] ** 2).sum(), torch.masked_select(x, x < 0).exp().sum()


def from_the_end(x):
    places = (x[:, 0] > 0).nonzero()[:, 0]
    whole = torch.cat([x[:1], x[places]])
    return whole[torch.tensor([-1, 0])].sum(0)


def images(x):
    chosen = x.reshape(6, 1, 2, 2)[x[:, 0] > 0]
    found = F.conv2d(
        F.avg_pool2d(F.pad(chosen, (1, 1, 1, 1)), 2), weights()[:3, :1].reshape(3, 1, 1, 1)
    )
    return found.flatten(1).sum(0)


def embedded(x):
    codes = (x[:, 0] > 0).nonzero()[:, 0]
    return F.embedding(codes, weights()[:, :2].repeat(2, 1) * x[0, 0].abs()).sum(0)


def numbers(x):
    """How many there are as a place, a factor, a step."""
    n = rows(x).shape[0]
    made = torch.cat([x, -x]).sin()
    replaced = torch.slice_scatter(made, x[:2], 0, n, n + 2)
    return (
        replaced,
        made[n : n + 3],
        made.select(0, n + 1),
        torch.add(x, x.exp(), alpha=n),
        x.tril(n - 3),
    )


def broadcast_mask(x):
    return torch.masked_select(x, x[:, :1] > 0).sum(), (x[:, x[0] > 0] ** 2).sum(1)


def two_zeros(x):
    """Masks that differ by the sign of a zero."""
    up = 1 / torch.full_like(x[:, 0], 0.0) > 0
    down = 1 / torch.full_like(x[:, 0], -0.0) > 0
    return x[up].sum(0), x[down].sum(0)


FUNCTIONS = (
    *(segments, two_masks, alike_masks, in_order, attention, pairs, layers, reshaped, written),
    *(counted, elements, from_the_end, images, embedded, numbers, broadcast_mask, two_zeros),
)


def leaves(result):
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("x", INPUTS.values(), ids=INPUTS.keys())
def test_values_and_derivatives_are_torchs(function, x):
    f = jax_callable(function, backend="xla", islands=False)
    given = torch.tensor(x, requires_grad=True)
    expected = leaves(function(given))
    results, pull = jax.vjp(jax.jit(f), jnp.asarray(x))
    for one, other in zip(leaves(results), expected, strict=True):
        assert_close(one, other.detach().numpy())
    factors = [torch.linspace(0.5, 2, one.numel()).reshape(one.shape) for one in expected]
    (wanted,) = torch.autograd.grad(expected, given, factors)
    arrays = [jnp.asarray(one.numpy()) for one in factors]
    cotangents = arrays[0] if not isinstance(results, tuple) else tuple(arrays)
    (found,) = pull(cotangents)
    assert_close(found, wanted.numpy())
    # Linear maps that belong together.
    tangent = jnp.asarray(X[::-1])
    _, pushed = jax.jvp(f, (jnp.asarray(x),), (tangent,))
    assert_close(
        sum(jnp.vdot(one, other) for one, other in zip(leaves(pushed), arrays, strict=True)),
        jnp.vdot(tangent, found),
    )


REDUCTIONS = {
    "sum": lambda k: k.sum(0),
    "mean": lambda k: k.mean(0),
    "mean of all": lambda k: k.mean(),
    "prod": lambda k: k.prod(0),
    "amax": lambda k: k.amax(0),
    "max": lambda k: k.max(0)[0],
    "argmin": lambda k: k.argmin(0),
    "argmax of all": lambda k: k.argmax(),
    "var": lambda k: k.var(0),
    "std": lambda k: k.std(0, correction=0),
    "any": lambda k: (k > 0).any(0),
    "all": lambda k: (k > 0).all(0),
    "logsumexp": lambda k: k.logsumexp(0),
    "softmax": lambda k: (k.softmax(0) * k).sum(0),
    "log_softmax": lambda k: k.log_softmax(0).sum(0),
    "norm": lambda k: k.norm(dim=0),
    "cumprod": lambda k: k.cumprod(0).sum(0),
    "sort": lambda k: (k.sort(0)[0] * torch.arange(k.shape[0])[:, None]).sum(0),
    "first": lambda k: k[0],
    "last": lambda k: k[-1],
    "some of them": lambda k: (k[:2] * 2).sum(0) + k[1:].sum(0) + k[1:3].sum(0) + k[:9].mean(0),
    "stack": lambda k: torch.stack([k, 2 * k]).sum(1),
}


# Torch refuses them of nothing, or what it makes them of.
CHECKED = {"amax", "argmin", "argmax of all", "first", "last", "logsumexp"}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_what_is_padding_does_not_count(name):
    def function(x):
        return REDUCTIONS[name]((1 / x)[x[:, 0] > 0])  # infinite behind what is there

    x = X.copy()
    x[1] = 0
    islands = name in CHECKED
    f = jax_callable(function, backend="xla", islands=islands)
    assert_close(f(jnp.asarray(x)), function(torch.tensor(x)).numpy())
    if islands:
        with pytest.raises(TorchExecutionError, match="sizes that follow from values"):
            f(jnp.asarray(NONE))
        with pytest.raises(PlanningError, match="it is a check"):
            jax_callable(function, backend="xla", islands=False)(jnp.asarray(x))


def test_different_values():
    x = np.array([3.0, 1, 3, 3, 2, 1, np.nan, np.nan], np.float32)

    def function(x):
        values, places, often = torch.unique(x, return_inverse=True, return_counts=True)
        runs, lengths = torch.unique_consecutive(x, return_counts=True)
        return values.nan_to_num(9).sum(), values[places], (often * often).sum(), runs, lengths

    outputs = {
        "a": "float32[]",
        "b": "float32[n]",
        "c": "int64[]",
        "d": "float32[runs<=n]",
        "e": "int64[runs]",
    }
    f = jax_callable(
        function,
        backend="xla",
        islands=False,
        spec={
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "inputs": {"x": "float32[n]"},
            "outputs": outputs,
        },
    )
    with jax.enable_x64(True):
        *found, runs, lengths = jax.jit(f)(jnp.asarray(x))
        *wanted, all_runs, all_lengths = function(torch.tensor(x))
        for one, other in zip(found, wanted, strict=True):
            assert_equal(one, other.numpy())
        count = len(all_runs)
        assert_equal(runs[:count], all_runs.numpy())
        assert_equal(lengths[:count], all_lengths.numpy())
        assert_equal(lengths[count:], np.zeros(8 - count))


def empty_or(x):
    kept = rows(x)
    return x.sum() if kept.numel() == 0 else kept.sum()


def as_long(x):
    kept = rows(x)
    return kept.sum() if len(kept) > 2 else x.sum()


def equally_long(x):
    first, second = rows(x), x[x[:, 1] > 0]
    return first.sum() if first.shape == second.shape else second.sum()


def any_there(x):
    return rows(x).sum() if (x[:, 0] > 0).any() else x.sum()


def by_a_value(x):
    return x[: int(x[0, 0])].sum()


def by_torchs_branches(x):
    return torch.cond(rows(x).shape[0] == 1, lambda x: x * 2, lambda x: x + 3, (x,))


def by_memory(x):
    return x * 2 if rows(x).T.is_contiguous() else x + 3


def by_axes(x):
    return x * 2 if rows(x).squeeze().dim() == 2 else x + 3


def one_way_or_the_other(x):
    try:
        return x * 5 if len(rows(x)) == 0 else x * 2
    except Exception:
        return x * 3


def a_value_or_not(x):
    try:
        return x * float(x.sum())
    except Exception:
        return x * 3


DECIDES = (
    *(empty_or, as_long, equally_long, any_there, by_a_value, by_torchs_branches, by_memory),
    *(by_axes, one_way_or_the_other, a_value_or_not),
)


@pytest.mark.parametrize("function", DECIDES)
def test_code_that_decides_by_them_is_refused(function):
    """Neither branch may be taken for both."""
    f = jax_callable(function, backend="xla")
    with pytest.raises(PlanningError, match=r"backend: xla.*Say `eager`"):
        f(jnp.asarray(X))
    assert_close(jax_callable(function)(jnp.asarray(X)), function(torch.tensor(X)).numpy())


def test_sizes_that_have_to_fit():
    def product(x):
        return (x[x[:, 0] > 0] * x[x[:, 1] > 0]).sum()

    def put(x):
        made = torch.zeros(6, 4)
        made[x[:, 0] > 0] = x[x[:, 1] > 0]
        return made

    for function in (product, put):
        with pytest.raises(PlanningError, match=r"(which|that) follows? from values"):
            jax_callable(function, backend="xla")(jnp.asarray(X))


@ONE_BY_ONE
def test_batches_and_programs():
    f = jax_callable(segments, backend="xla", islands=False)
    batch = jnp.stack([jnp.asarray(one) for one in INPUTS.values()])
    for one, other in zip(
        jax.jit(jax.vmap(f))(batch),
        zip(*(segments(torch.tensor(x)) for x in INPUTS.values()), strict=True),
        strict=True,
    ):
        assert_close(one, torch.stack(other).numpy())
    text = jax.export.export(jax.jit(jax.grad(lambda x: f(x)[0].sum())), platforms=["tpu"])(
        jax.ShapeDtypeStruct(X.shape, X.dtype)
    ).mlir_module()
    assert "stablehlo.custom_call" not in text


def test_a_function_with_a_key():
    def dropped(x):
        return F.dropout(rows(x), 0.5).sum()

    f = jax_callable(dropped, backend="xla", random="key")
    with pytest.raises(PlanningError, match="sizes that follow from values"):
        f(jnp.asarray(X), rng=jax.random.key(0))
