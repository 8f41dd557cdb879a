"""Dtypes of results, tangents and gradients; arguments and results that nothing flows through."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable

pytestmark = pytest.mark.derivatives

# By precision.
DTYPES = ["bfloat16", "float16", "float32", "float64"]


def draw(*shape, seed=0, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def is_inexact(array):
    return jnp.issubdtype(array.dtype, jnp.inexact)


def directions(tree, seed=7):
    """Tangents or cotangents as JAX wants them: float0 for integers and booleans."""

    def one(array):
        if not is_inexact(array):
            return np.zeros(array.shape, jax.dtypes.float0)
        return draw(*array.shape, seed=seed, dtype=array.dtype)

    return jax.tree.map(one, tree)


def derivatives(f):
    """Everything whose dtype JAX fixes: results, tangents, cotangents, and second order."""

    def call(*arrays):
        floats = tuple(i for i, array in enumerate(arrays) if is_inexact(array))

        def loss(*arrays):
            leaves = [leaf for leaf in jax.tree.leaves(f(*arrays)) if is_inexact(leaf)]
            return sum(jnp.sum(leaf.astype("float32") ** 2) for leaf in leaves)

        def along(*arrays):
            gradients = jax.grad(loss, floats)(*arrays)
            return sum(jnp.sum(gradient.astype("float32") ** 2) for gradient in gradients)

        results, pull = jax.vjp(f, *arrays)
        return {
            "pushed": jax.jvp(f, tuple(arrays), tuple(directions(arrays))),
            "linearized": jax.linearize(f, *arrays)[1](*directions(arrays)),
            "pulled": pull(directions(results)),
            "grad": jax.grad(loss, floats)(*arrays),
            "second": jax.grad(along, floats)(*arrays),
        }

    return call


def compare(function, twin, *arrays, computed_in=None):
    """Eager and compiled, against the twin."""
    mine, twins = derivatives(jax_callable(function)), derivatives(twin)(*arrays)
    assert_close(mine(*arrays), twins, computed_in=computed_in)
    assert_close(jax.jit(mine)(*arrays), twins, computed_in=computed_in)


# --- dtypes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_dtype(dtype):
    with jax.enable_x64(True):
        x, w = draw(3, dtype=dtype), draw(3, seed=1, dtype=dtype)
        compare(lambda x, w: torch.sin(x) * w, lambda x, w: jnp.sin(x) * w, x, w)


@pytest.mark.parametrize("inside", ["float32", "float64"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_casts_inside(dtype, inside):
    """The result has another dtype than the input; the gradient has the input's again."""
    with jax.enable_x64(True):
        compare(
            lambda x: x.to(getattr(torch, inside)).sin() * 2,
            lambda x: jnp.sin(x.astype(inside)) * 2,
            draw(4, dtype=dtype),
            computed_in=min(dtype, inside, key=DTYPES.index),
        )


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
def test_half_and_single_precision_together(low):
    """Both sides promote to float32; each gradient has its own argument's dtype."""
    x, w = draw(3, dtype=low), draw(3, seed=1)
    compare(lambda x, w: x * w + x, lambda x, w: x * w + x, x, w, computed_in=low)


def test_single_and_double_precision_together():
    with jax.enable_x64(True):
        x, w = draw(3), draw(3, seed=1, dtype="float64")
        compare(lambda x, w: x.exp() * w, lambda x, w: jnp.exp(x) * w, x, w, computed_in="float32")


def test_results_of_several_dtypes():
    compare(
        lambda x: (x.bfloat16(), x.half() * 2, x.sin()),
        lambda x: (x.astype("bfloat16"), x.astype("float16") * 2, jnp.sin(x)),
        draw(3),
        computed_in="bfloat16",
    )


@pytest.mark.parametrize("low", ["bfloat16", "float16"])
def test_batches_of_mixed_precision(low):
    def transformed(f):
        gradients = jax.grad(lambda x, w: f(x, w).sum(), argnums=(0, 1))
        return jax.jit(jax.vmap(gradients, in_axes=(0, None)))

    x, w = draw(4, 3, dtype=low), draw(3, seed=1)
    mine = transformed(jax_callable(lambda x, w: x.float().sin() * w))
    twin = transformed(lambda x, w: jnp.sin(x.astype("float32")) * w)
    assert_close(mine(x, w), twin(x, w), computed_in=low)


def test_double_precision_stays_exact_inside_a_scan():
    """float32 anywhere on the way would show at this tolerance."""

    def total(f):
        def step(carry, _):
            carry = f(carry)
            return carry, carry

        return lambda x: jax.lax.scan(step, x, length=4)[1].sum()

    with jax.enable_x64(True):
        x = draw(3, dtype="float64")
        mine, twin = total(jax_callable(torch.sin)), total(jnp.sin)
        assert_close(jax.jit(jax.hessian(mine))(x), jax.jit(jax.hessian(twin))(x))


# --- integers and booleans ----------------------------------------------------------------------


def test_integer_and_boolean_inputs():
    x, i, flags = draw(5), jnp.asarray([0, 2, 2]), jnp.asarray([True, False, True])
    compare(
        lambda x, i, flags: torch.where(flags, x[i].exp(), x[:3] * i),
        lambda x, i, flags: jnp.where(flags, jnp.exp(x[i]), x[:3] * i),
        x, i, flags,
    )  # fmt: skip


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_allow_int_gives_float0(jit):
    def transformed(f):
        return jit(jax.grad(lambda *xs: f(*xs).sum(), argnums=(0, 1, 2), allow_int=True))

    arrays = draw(3), jnp.asarray([1, 2, 3]), jnp.asarray([True, False, True])
    mine = transformed(jax_callable(lambda x, i, flags: x**2 * i * flags))(*arrays)
    assert_close(mine, transformed(lambda x, i, flags: x**2 * i * flags)(*arrays))
    assert [g.dtype for g in mine[1:]] == [jax.dtypes.float0] * 2


def test_integers_alone():
    i = jnp.asarray([1, 2, 3])
    mine = jax.grad(jax_callable(lambda i: i.float().sin().sum()), allow_int=True)(i)
    assert (mine.dtype, mine.shape) == (jax.dtypes.float0, (3,))
    tangents = np.zeros(3, jax.dtypes.float0)
    value, moved = jax.jvp(jax_callable(lambda i: i * 2.5), (i,), (tangents,))
    assert_close((value, moved), jax.jvp(lambda i: i * 2.5, (i,), (tangents,)))


def test_integer_and_boolean_results():
    compare(
        lambda x: {
            "sign": x.sign().int(),
            "positive": x > 0,
            "y": x**3,
            "order": x.argsort().int(),
        },
        lambda x: {
            "sign": jnp.sign(x).astype("int32"),
            "positive": x > 0,
            "y": x**3,
            "order": jnp.argsort(x),
        },
        draw(4),
    )


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_only_integer_results(jit):
    x = draw(4)

    def transformed(f):
        return jit(lambda x: jax.jvp(f, (x,), (x,)))

    mine = transformed(jax_callable(lambda x: (x > 0, x.argmax().int())))(x)
    assert_close(mine, transformed(lambda x: (x > 0, jnp.argmax(x)))(x))
    assert mine[1][0].dtype == jax.dtypes.float0


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_integers_in_the_carry_of_a_loop(jit):
    """Tangents of the carry are float0 there, in both modes."""

    def total(f):
        def step(carry, _):
            return f(*carry), None

        return lambda x: jax.lax.scan(step, (x, jnp.asarray([0, 1])), length=3)[0][0].sum()

    mine = total(jax_callable(lambda x, i: (x.sin() * x[i].sum(), (i + 1) % 3)))
    twin = total(lambda x, i: (jnp.sin(x) * x[i].sum(), (i + 1) % 3))
    for transform in (jax.grad, jax.jacfwd, jax.hessian):
        assert_close(jit(transform(mine))(draw(3)), jit(transform(twin))(draw(3)))


# --- contracts ----------------------------------------------------------------------------------


def contract(**inputs):
    return {
        "schema": "jaxtorch/1", "name": "scaled", "version": "1.0.0",
        "inputs": inputs, "outputs": {"y": "float32[n]"},
    }  # fmt: skip


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_input_that_is_not_differentiable(jit):
    """As if the twin stopped the gradient there, in both modes and orders."""
    scale = {"shape": "[n]", "dtype": "float32", "differentiable": False}
    spec = contract(x="float32[n]", scale=scale)
    mine = jit(derivatives(jax_callable(lambda x, scale: x.sin() * scale**2, spec=spec)))
    x, scale = draw(3), draw(3, seed=1)
    twin = derivatives(lambda x, scale: jnp.sin(x) * jax.lax.stop_gradient(scale) ** 2)
    assert_close(mine(x, scale), twin(x, scale))


def test_an_optional_input_that_is_left_out():
    spec = contract(x="float32[n]", shift={"shape": "[n]", "dtype": "float32", "optional": True})
    mine = jax_callable(lambda x, shift=None: x**2 if shift is None else x**2 * shift, spec=spec)
    x = draw(3)
    assert_close(jax.grad(lambda x: mine(x).sum())(x), 2 * x)
    assert_close(jax.grad(lambda s: mine(x, s).sum())(x), x**2)


# --- zeros --------------------------------------------------------------------------------------


def test_an_input_that_no_result_depends_on():
    compare(lambda x, unused: x.sin(), lambda x, unused: jnp.sin(x), draw(3), draw(2, seed=1))


def test_an_input_of_which_only_the_shape_matters():
    compare(
        lambda x, y: x.exp().expand(y.shape),
        lambda x, y: jnp.broadcast_to(jnp.exp(x), y.shape),
        draw(3),
        draw(2, 3, seed=1),
    )


def test_a_result_that_depends_on_nothing():
    compare(
        lambda x: (x**2, torch.full((2,), 3.0), torch.arange(2, dtype=torch.int32)),
        lambda x: (x**2, jnp.full((2,), 3.0), jnp.arange(2)),
        draw(3),
    )


def test_no_result_depends_on_anything():
    compare(lambda x: torch.ones(2), lambda x: jnp.ones(2), draw(3))


def test_each_result_depends_on_its_own_input():
    def pairs(sin):
        return lambda x, y: (sin(x), y**2)

    compare(pairs(torch.sin), pairs(jnp.sin), draw(3), draw(2, seed=1))
    x, y = draw(3), draw(2, seed=1)
    mine = jax.jacrev(jax_callable(pairs(torch.sin)), argnums=(0, 1))(x, y)
    assert_close(mine, jax.jacrev(pairs(jnp.sin), argnums=(0, 1))(x, y))
    assert_close(jax.jacfwd(jax_callable(pairs(torch.sin)), argnums=(0, 1))(x, y), mine)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_an_unused_result_has_no_effect(jit):
    """Its derivative is infinite at zero, so that zero times it would be nan."""
    x = jnp.zeros(3)
    both = jax_callable(lambda x: (x * 3, x.sqrt()))

    def first(x):
        return (both(x)[0] ** 2 + both(x)[0]).sum()

    for transform in (jax.grad, jax.jacfwd):
        assert_equal(jit(transform(first))(x), 3 * np.ones(3))
    assert_equal(jit(jax.hessian(first))(x), 18 * np.eye(3))


def test_a_detached_part_is_a_constant():
    compare(
        lambda x, w: x.detach() * w + (x * w).detach() * x,
        lambda x, w: jax.lax.stop_gradient(x) * w + jax.lax.stop_gradient(x * w) * x,
        draw(3),
        draw(3, seed=1),
    )


def test_a_detached_result():
    compare(
        lambda x: (x.sin().detach(), x**2),
        lambda x: (jax.lax.stop_gradient(jnp.sin(x)), x**2),
        draw(3),
    )


def test_no_grad_inside():
    def function(x):
        with torch.no_grad():
            scale = x.exp()
        return scale * x

    compare(function, lambda x: jax.lax.stop_gradient(jnp.exp(x)) * x, draw(3))


def test_stop_gradient_outside():
    def around(f):
        return lambda x, w: f(jax.lax.stop_gradient(x), w) * f(x, jax.lax.stop_gradient(w))

    x, w = draw(3), draw(3, seed=1)
    mine = derivatives(around(jax_callable(lambda x, w: x.sin() * w)))(x, w)
    assert_close(mine, derivatives(around(lambda x, w: jnp.sin(x) * w))(x, w))


def test_a_bilinear_function_has_only_mixed_second_derivatives():
    x, w = draw(2, 3), draw(3, 2, seed=1)
    mine = jax_callable(lambda x, w: x @ w)
    hessian = jax.hessian(lambda x: mine(x, w).sum())(x)
    assert_equal(hessian, np.zeros((2, 3, 2, 3)))
    assert_close(
        jax.hessian(mine, argnums=(0, 1))(x, w), jax.hessian(jnp.matmul, argnums=(0, 1))(x, w)
    )


@pytest.mark.parametrize("shape", [(0,), (0, 3)])
def test_empty_arrays(shape):
    compare(lambda x: x.sin() * 2, lambda x: jnp.sin(x) * 2, jnp.zeros(shape))
