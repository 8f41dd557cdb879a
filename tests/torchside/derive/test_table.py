"""Functions and their jax.numpy twins through every transformation, alone and nested."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.test_util import check_grads

from comparing import assert_close
from jaxtorch_bridge import jax_callable

pytestmark = pytest.mark.derivatives

F = torch.nn.functional


# --- the table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A torch function, its twin, and the shapes of its arguments.

    ``prepare`` maps standard normal numbers to arguments at which the function is smooth.
    """

    torch: Callable[..., Any]
    twin: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    prepare: Callable[..., Any] = lambda *arrays: arrays


def _layer_norm(x, g, b):
    centered = x - x.mean(-1, keepdims=True)
    return centered / jnp.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * g + b


def _conv(x, w, b):
    dimensions = ("NCHW", "OIHW", "NCHW")
    y = jax.lax.conv_general_dilated(x, w, (2, 1), ((1, 1), (0, 0)), dimension_numbers=dimensions)
    return jnp.tanh(y + b[:, None, None])


def _spread(x):
    """Distinct values far apart, so that a maximum stays where it is."""
    order = np.argsort(np.argsort(x.ravel())).reshape(x.shape)
    return (order / 2 + 0.1 * np.tanh(x),)


def _positive_definite(a):
    return (a @ np.swapaxes(a, -1, -2) + 2 * np.eye(a.shape[-1]),)


def _symmetric_cholesky(linalg, a):
    """JAX takes a for symmetric and torch reads its lower half: the same only of a symmetric a."""
    return linalg.cholesky((a + a.mT) / 2)


def _regular(a, *rest):
    return (a / 2 + 2 * np.eye(a.shape[-1]), *rest)


def _with_index(x):
    return x, np.array([2, 0, 2], np.int32)


def _outputs(x, w):
    y = x @ w
    return {"y": y.sin(), "pair": (y.sum(0), (y**2).mean()), "list": [x.T * 2]}


def _outputs_twin(x, w):
    y = x @ w
    return {"y": jnp.sin(y), "pair": (y.sum(0), (y**2).mean()), "list": [x.T * 2]}


CASES = {
    "elementwise": Case(
        lambda x: torch.sin(x) * torch.exp(-(x**2)) + x / (1 + x**2),
        lambda x: jnp.sin(x) * jnp.exp(-(x**2)) + x / (1 + x**2),
        ((2, 3),),
    ),
    "scalar": Case(lambda x: x.sin() * x, lambda x: jnp.sin(x) * x, ((),)),
    "polynomial": Case(
        lambda x, c: c[0] + x * (c[1] + x * (c[2] + x * c[3])),
        lambda x, c: c[0] + x * (c[1] + x * (c[2] + x * c[3])),
        ((3,), (4,)),
    ),
    "log1p_exp": Case(
        lambda x: torch.log1p(torch.exp(x)) + torch.expm1(x / 2),
        lambda x: jnp.log1p(jnp.exp(x)) + jnp.expm1(x / 2),
        ((4,),),
    ),
    "matmul_tanh": Case(
        lambda x, w, b: torch.tanh(x @ w + b),
        lambda x, w, b: jnp.tanh(x @ w + b),
        ((2, 3), (3, 2), (2,)),
    ),
    "batched_matmul": Case(
        lambda a, b: torch.bmm(a, b).sigmoid(),
        lambda a, b: jax.nn.sigmoid(a @ b),
        ((2, 2, 3), (2, 3, 2)),
    ),
    "linear": Case(lambda x, w: x @ w, lambda x, w: x @ w, ((2, 3), (3, 2))),
    "softmax": Case(lambda x: F.softmax(x, -1), lambda x: jax.nn.softmax(x, -1), ((2, 3),)),
    "logsumexp": Case(lambda x: torch.logsumexp(x, 0), lambda x: jax.nn.logsumexp(x, 0), ((3, 2),)),
    "layer_norm": Case(
        lambda x, g, b: F.layer_norm(x, (4,), g, b), _layer_norm, ((2, 4), (4,), (4,))
    ),
    "gelu": Case(F.gelu, lambda x: jax.nn.gelu(x, approximate=False), ((4,),)),
    "einsum": Case(
        lambda a, b, c: torch.einsum("ij,jk,ik->k", a, b, c),
        lambda a, b, c: jnp.einsum("ij,jk,ik->k", a, b, c),
        ((2, 3), (3, 2), (2, 2)),
    ),
    "cumsum": Case(
        lambda x: torch.cumsum(x.exp(), 1), lambda x: jnp.cumsum(jnp.exp(x), 1), ((2, 3),)
    ),
    "prod": Case(lambda x: x.prod(0), lambda x: x.prod(0), ((3, 2),)),
    "amax": Case(lambda x: torch.amax(x, 1) ** 2, lambda x: jnp.max(x, 1) ** 2, ((2, 3),), _spread),
    "max_with_index": Case(
        lambda x: tuple(torch.max(x * x, 1)),
        lambda x: (jnp.max(x * x, 1), jnp.argmax(x * x, 1)),
        ((2, 3),),
        _spread,
    ),
    "argmax_beside": Case(
        lambda x: {"index": x.argmax(1), "positive": x > 0, "value": x.sin()},
        lambda x: {"index": x.argmax(1), "positive": x > 0, "value": jnp.sin(x)},
        ((2, 3),),
        _spread,
    ),
    "norm": Case(
        lambda x: torch.linalg.norm(x, dim=-1), lambda x: jnp.linalg.norm(x, axis=-1), ((2, 3),)
    ),
    "where": Case(
        lambda x, y: torch.where(x > 0, x * y, y.sin()),
        lambda x, y: jnp.where(x > 0, x * y, jnp.sin(y)),
        ((4,), (4,)),
    ),
    "slices": Case(
        lambda x: x[1:, ::2] * x[0, 1:] + x[-1, [2, 0]].cos(),
        lambda x: x[1:, ::2] * x[0, 1:] + jnp.cos(x[-1, jnp.array([2, 0])]),
        ((3, 3),),
    ),
    "int_input": Case(
        lambda x, i: (x[i].exp(), i * 2),
        lambda x, i: (jnp.exp(x[i]), i * 2),
        ((3, 2),),
        _with_index,
    ),
    "cat_stack": Case(
        lambda x, y: torch.cat([torch.stack([x, y]), (x * y)[None]], 0).cos(),
        lambda x, y: jnp.cos(jnp.concatenate([jnp.stack([x, y]), (x * y)[None]], 0)),
        ((3,), (3,)),
    ),
    "outputs": Case(_outputs, _outputs_twin, ((2, 3), (3, 2))),
    "conv": Case(
        lambda x, w, b: torch.tanh(F.conv2d(x, w, b, stride=(2, 1), padding=(1, 0))),
        _conv,
        ((1, 2, 3, 3), (2, 2, 2, 2), (2,)),
    ),
    "solve": Case(torch.linalg.solve, jnp.linalg.solve, ((2, 2), (2, 2)), _regular),
    "cholesky": Case(
        partial(_symmetric_cholesky, torch.linalg),
        partial(_symmetric_cholesky, jnp.linalg),
        ((2, 2),),
        _positive_definite,
    ),
    "inv": Case(torch.linalg.inv, jnp.linalg.inv, ((2, 2),), _regular),
    "det": Case(torch.linalg.det, jnp.linalg.det, ((2, 2),), _regular),
}


@cache
def wrapped(name):
    """One wrapped function for all tests of a case, as in a program."""
    return jax_callable(CASES[name].torch, name=name)


def draw(case, dtype, seed=0):
    rng = np.random.default_rng(seed)
    arrays = case.prepare(*(np.asarray(rng.standard_normal(shape)) for shape in case.shapes))
    return [jnp.asarray(a if a.dtype == np.int32 else a.astype(dtype)) for a in arrays]


def is_inexact(array):
    return jnp.issubdtype(array.dtype, jnp.inexact)


def directions(tree, seed=7):
    """Tangents or cotangents as JAX wants them: float0 for integers and booleans."""
    rng = np.random.default_rng(seed)

    def one(array):
        if not is_inexact(array):
            return np.zeros(array.shape, jax.dtypes.float0)
        return jnp.asarray(rng.standard_normal(array.shape), array.dtype)

    return jax.tree.map(one, tree)


# --- the transformations ------------------------------------------------------------------------

TRANSFORMS = {}


def transform(function):
    """Each takes the function and gives what is called on the arguments."""
    TRANSFORMS[function.__name__] = function
    return function


def movable(arrays):
    """The arguments that can carry a tangent."""
    return tuple(i for i, array in enumerate(arrays) if is_inexact(array))


def of_movable(transformed, function):
    """`jax.grad` and its like, by every argument that can carry a tangent."""

    def call(*arrays):
        return transformed(function, argnums=movable(arrays))(*arrays)

    return call


def inexact(f):
    """The results that have derivatives."""
    return lambda *arrays: [leaf for leaf in jax.tree.leaves(f(*arrays)) if is_inexact(leaf)]


def loss(f):
    """A number that depends on every result in its own way, with derivatives of all orders."""

    def total(*arrays):
        leaves = inexact(f)(*arrays)
        return sum(
            jnp.sum(jnp.sin(leaf * (1 + jnp.arange(leaf.size).reshape(leaf.shape) / 4)))
            for leaf in leaves
        )

    return total


def towards(function, seed=7):
    """The derivative of a scalar function in one direction, by reverse mode."""

    def along(*arrays):
        gradients = of_movable(jax.grad, function)(*arrays)
        return sum(
            jnp.sum(gradient * direction)
            for gradient, direction in zip(gradients, directions(gradients, seed), strict=True)
        )

    return along


def pushed(function, seed=7):
    """The derivative in one direction, by forward mode."""
    return lambda *arrays: jax.jvp(function, arrays, directions(arrays, seed))[1]


def batch(arrays):
    """Three different elements; integers stay what they are."""
    return [
        jnp.stack([a, a * 1.1, a * 0.9 + 0.01]) if is_inexact(a) else jnp.stack([a] * 3)
        for a in arrays
    ]


@transform
def plain(f):
    return f


@transform
def grad(f):
    return of_movable(jax.grad, loss(f))


@transform
def value_and_grad_aux(f):
    def with_aux(*arrays):
        return loss(f)(*arrays), f(*arrays)

    return of_movable(partial(jax.value_and_grad, has_aux=True), with_aux)


@transform
def vjp(f):
    def call(*arrays):
        results, pull = jax.vjp(f, *arrays)
        return results, pull(directions(results))

    return call


@transform
def jvp(f):
    return lambda *arrays: jax.jvp(f, tuple(arrays), tuple(directions(arrays)))


@transform
def linearize(f):
    def call(*arrays):
        results, push = jax.linearize(f, *arrays)
        return results, push(*directions(arrays)), push(*directions(arrays, seed=8))

    return call


@transform
def linear_transpose(f):
    def call(*arrays):
        results, push = jax.linearize(inexact(f), *(arrays[i] for i in movable(arrays)))
        pull = jax.linear_transpose(push, *(arrays[i] for i in movable(arrays)))
        return pull(directions(results))

    def of_floats(*arrays):
        if len(movable(arrays)) < len(arrays):
            integers = arrays[len(movable(arrays)) :]
            return linear_transpose(lambda *floats: f(*floats, *integers))(
                *arrays[: len(movable(arrays))]
            )
        return call(*arrays)

    return of_floats


@transform
def jacfwd(f):
    return of_movable(jax.jacfwd, inexact(f))


@transform
def jacrev(f):
    return of_movable(jax.jacrev, inexact(f))


@transform
def hessian(f):
    return of_movable(jax.hessian, loss(f))


@transform
def hessian_rev_fwd(f):
    return of_movable(jax.jacrev, of_movable(jax.jacfwd, loss(f)))


@transform
def hessian_rev_rev(f):
    return of_movable(jax.jacrev, of_movable(jax.jacrev, inexact(f)))


@transform
def hessian_fwd_fwd(f):
    return of_movable(jax.jacfwd, of_movable(jax.jacfwd, inexact(f)))


@transform
def forward_over_reverse(f):
    gradient = of_movable(jax.grad, loss(f))
    return lambda *arrays: jax.jvp(gradient, tuple(arrays), tuple(directions(arrays)))


@transform
def reverse_over_forward(f):
    return of_movable(jax.grad, pushed(loss(f)))


@transform
def grad_of_grad(f):
    return of_movable(jax.grad, towards(loss(f)))


@transform
def third_reverse(f):
    return of_movable(jax.grad, towards(towards(loss(f)), seed=8))


@transform
def third_forward(f):
    return pushed(pushed(pushed(inexact(f)), seed=8), seed=9)


@transform
def third_mixed(f):
    return of_movable(jax.grad, pushed(towards(loss(f)), seed=8))


@transform
def vmap(f):
    return lambda *arrays: jax.vmap(f)(*batch(arrays))


@transform
def vmap_one_argument(f):
    """The other arguments have no batch, and the batch lies at the end."""

    def call(first, *rest):
        mapped = jax.vmap(inexact(f), in_axes=(-1, *[None] * len(rest)), out_axes=-1)
        return mapped(jnp.moveaxis(batch([first])[0], 0, -1), *rest)

    return call


@transform
def vmap_of_grad(f):
    return lambda *arrays: jax.vmap(of_movable(jax.grad, loss(f)))(*batch(arrays))


@transform
def vmap_of_jacrev(f):
    """Two batches at once: the elements, and in each of them the cotangents."""
    return lambda *arrays: jax.vmap(of_movable(jax.jacrev, inexact(f)))(*batch(arrays))


@transform
def vmap_of_hessian(f):
    return lambda *arrays: jax.vmap(of_movable(jax.hessian, loss(f)))(*batch(arrays))


@transform
def vmap_of_jvp(f):
    return lambda *arrays: jax.vmap(pushed(inexact(f)))(*batch(arrays))


@transform
def jacfwd_of_vmap(f):
    return lambda *arrays: of_movable(jax.jacfwd, jax.vmap(inexact(f)))(*batch(arrays))


@transform
def grad_of_vmap(f):
    return lambda *arrays: of_movable(jax.grad, loss(jax.vmap(f)))(*batch(arrays))


def scanned(f):
    """The carry goes into each step, so that derivatives flow through the whole loop."""

    def total(*arrays):
        def step(carry, elements):
            moved = [a + carry / 8 if is_inexact(a) else a for a in elements]
            value = loss(f)(*moved)
            return jnp.tanh(value), value

        carry, values = jax.lax.scan(step, jnp.zeros_like(arrays[0], shape=()), batch(arrays))
        return carry + values.sum()

    return total


@transform
def grad_of_scan(f):
    return of_movable(jax.grad, scanned(f))


@transform
def jvp_of_scan(f):
    return pushed(scanned(f))


@transform
def grad_of_grad_of_scan(f):
    return of_movable(jax.grad, towards(scanned(f)))


@transform
def grad_of_cond(f):
    """Each branch once, chosen by a traced value."""

    def total(*arrays):
        value = loss(f)(*arrays)
        chosen = (
            jax.lax.cond(flag, loss(f), lambda *xs: jnp.sum(xs[0] ** 2), *arrays)
            for flag in (value > -1e9, value > 1e9)
        )
        return sum(chosen) + value

    return of_movable(jax.grad, total)


@transform
def jvp_of_while_loop(f):
    def looped(*arrays):
        def body(state):
            count, first = state
            return count + 1, first + loss(f)(first, *arrays[1:]) / 8

        return jax.lax.while_loop(lambda state: state[0] < 3, body, (0, arrays[0]))[1]

    return pushed(looped)


@transform
def checkpoint(f):
    return of_movable(jax.grad, loss(jax.checkpoint(f)))


@transform
def checkpoint_twice(f):
    return of_movable(jax.grad, towards(jax.checkpoint(loss(f))))


def _checkpoint_with(policy, f):
    kept = jax.checkpoint(loss(f), policy=getattr(jax.checkpoint_policies, policy))
    return of_movable(jax.value_and_grad, kept)


for _policy in ("everything_saveable", "nothing_saveable", "dots_saveable"):
    TRANSFORMS[f"checkpoint_{_policy}"] = partial(_checkpoint_with, _policy)


@transform
def inside_custom_vjp(f):
    """The caller's own rule, which takes the function's gradient twice as large."""

    @jax.custom_vjp
    def doubled(*arrays):
        return loss(f)(*arrays)

    def forward(*arrays):
        return jax.vjp(loss(f), *arrays)

    doubled.defvjp(forward, lambda pull, cotangent: pull(2 * cotangent))
    return of_movable(jax.value_and_grad, doubled)


@transform
def inside_custom_jvp(f):
    @jax.custom_jvp
    def tripled(*arrays):
        return loss(f)(*arrays)

    @tripled.defjvp
    def _(primals, tangents):
        value, tangent = jax.jvp(loss(f), primals, tangents)
        return value, 3 * tangent

    return of_movable(jax.grad, towards(tripled))


# --- the comparison -----------------------------------------------------------------------------


def run(name, transformation, dtype, jit):
    case = CASES[name]
    with jax.enable_x64(dtype == "float64"):
        arrays = draw(case, dtype)
        mine = TRANSFORMS[transformation](wrapped(name))
        # Compiled once as a whole, the twin is cheaper than op by op.
        twins = jax.jit(TRANSFORMS[transformation](case.twin))(*arrays)
        assert_close((jax.jit(mine) if jit else mine)(*arrays), twins)


# The whole product takes some ten minutes: `FULL_TABLE=1` in the environment. Otherwise one case
# goes through everything, and each of the others through the first few and its share of the rest.
FULL_TABLE = "FULL_TABLE" in os.environ
THROUGH_EVERYTHING = "matmul_tanh"
EVERY_CASE = ("value_and_grad_aux", "jvp")
SHARE = 1

# Where torch alone goes wrong: derivatives of its forward-mode formulas (layer_norm, solve, det),
# of a batched backward (layer_norm), third orders, and LU factors with a batch of one in between.
# Forward mode of third order is here because tracing it with fake tensors takes its own path.
HARD_PAIRS = [
    ("elementwise", "third_forward"),
    ("max_with_index", "third_forward"),
    ("layer_norm", "hessian"),
    ("layer_norm", "hessian_fwd_fwd"),
    ("layer_norm", "reverse_over_forward"),
    ("layer_norm", "third_reverse"),
    ("norm", "third_mixed"),
    ("solve", "hessian_fwd_fwd"),
    ("solve", "reverse_over_forward"),
    ("solve", "third_mixed"),
    ("det", "vmap_of_jacrev"),
    ("det", "hessian_fwd_fwd"),
    ("det", "third_reverse"),
]


def chosen():
    """Pairs of case and transformation, without repetition."""
    rest = [name for name in TRANSFORMS if name not in EVERY_CASE]
    pairs = [(THROUGH_EVERYTHING, name) for name in TRANSFORMS]
    for place, case in enumerate(CASES):
        share = (rest[(place * SHARE + i) % len(rest)] for i in range(SHARE))
        pairs += [(case, name) for name in (TRANSFORMS if FULL_TABLE else (*EVERY_CASE, *share))]
    return list(dict.fromkeys([*pairs, *HARD_PAIRS]))


@pytest.mark.parametrize(("name", "transformation"), chosen())
def test_compiled_in_float64(name, transformation):
    run(name, transformation, "float64", jit=True)


@pytest.mark.parametrize(
    "transformation",
    ["value_and_grad_aux", "vjp", "jvp", "linearize", "jacfwd", "jacrev", "forward_over_reverse",
     "grad_of_grad", "vmap", "grad_of_scan", "jvp_of_while_loop", "checkpoint",
     "checkpoint_everything_saveable", "inside_custom_vjp"],
)  # fmt: skip
@pytest.mark.parametrize("name", CASES if FULL_TABLE else ["int_input"])
def test_eager_in_float32(name, transformation):
    run(name, transformation, "float32", jit=False)


# --- finite differences -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scalar", "inv"])
def test_finite_differences_of_third_order(name):
    with jax.enable_x64(True):
        arrays = draw(CASES[name], "float64")
        check_grads(jax.jit(wrapped(name)), arrays, order=3, modes=("fwd", "rev"))


@pytest.mark.parametrize("name", ["scalar", "gelu", "matmul_tanh"])
def test_finite_differences_of_second_order_in_float32(name):
    # A step of 1e-2 and this tolerance are what differences in float32 can tell.
    arrays = draw(CASES[name], "float32")
    check_grads(
        jax.jit(wrapped(name)),
        arrays,
        order=2,
        modes=("fwd", "rev"),
        atol=2e-2,
        rtol=2e-2,
        eps=1e-2,
    )
