"""Contracts with choices of dtypes, typed static arguments and nested arrays, at work."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge import SpecError, SpecMismatchError, jax_callable

HEAD = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}


def wrapped(function, inputs, outputs, **fields):
    return jax_callable(function, spec={**HEAD, "inputs": inputs, "outputs": outputs, **fields})


SCALED = ({"x": "float32|bfloat16[n]", "w": "like x[n]"}, {"y": "like x[n]"})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("jit", [False, True])
def test_a_function_of_two_dtypes(dtype, jit):
    f = wrapped(lambda x, w: x * w, *SCALED)
    x, w = jnp.arange(3, dtype=dtype), jnp.full(3, 2, dtype)
    y = (jax.jit(f) if jit else f)(x, w)
    assert y.dtype == dtype
    assert_equal(np.asarray(y, "float32"), [0, 2, 4])
    gradient = jax.grad(lambda x: f(x, w).astype("float32").sum())(x)
    assert gradient.dtype == dtype
    assert_equal(np.asarray(gradient, "float32"), [2, 2, 2])


@pytest.mark.parametrize("jit", [False, True])
def test_dtypes_that_do_not_agree(jit):
    f = wrapped(lambda x, w: x * w, *SCALED)
    call = jax.jit(f) if jit else f
    x = jnp.ones(3)
    with pytest.raises(SpecMismatchError, match="input `w`: expected dtype float32, that of `x`"):
        call(x, x.astype("bfloat16"))
    with pytest.raises(SpecMismatchError, match="input `x`: expected dtype float32 or bfloat16"):
        call(x.astype("float16"), x.astype("float16"))


def test_an_output_that_does_not_follow_is_found_when_tracing():
    f = wrapped(lambda x, w: (x * w).float(), *SCALED)
    x = jnp.ones(3)
    assert_equal(f(x, x), [1, 1, 1])
    with pytest.raises(
        SpecMismatchError,
        match=r"output `y`: expected dtype bfloat16, that of `x`; torch returned float32.*tracing",
    ):
        f(x.astype("bfloat16"), x.astype("bfloat16"))


@pytest.mark.parametrize("eager", [False, True])
def test_an_output_that_does_not_follow_is_found_when_running(eager):
    def values_decide(x, w):
        return (x * w).float() if float(x.sum()) > 0 else x * w

    f = wrapped(values_decide, *SCALED)
    call = f if eager else jax.jit(f)
    zero = jnp.zeros(3, "bfloat16")
    assert call(zero, zero).dtype == "bfloat16"
    with pytest.raises(Exception, match=r"output `y`: planned bfloat16.*torch returned float32"):
        jax.block_until_ready(call(zero + 1, zero))


def test_integers_are_widened_to_the_choice_that_they_stand_for():
    f = wrapped(
        lambda i: (i + 1, i.double()),
        {"i": "int64|float16[n]"},
        {"j": "like i[n]", "d": "float64[n]"},
    )
    (j, _) = f(jnp.arange(3, dtype="int32"))
    assert f.plan(jnp.arange(3, dtype="int32")).inputs[0].torch_dtype == "int64"
    assert_equal(j, [1, 2, 3])
    assert f.plan(jnp.ones(3, "float16")).inputs[0].torch_dtype == "float16"


def typed(x, *, causal=False, mode="mean", dims=(0,)):
    return x * (2 if causal else 1)


TYPED = {
    "causal": {"type": "bool", "default": False},
    "mode": {"type": "str", "choices": ["mean", "sum"], "default": "mean"},
    "dims": {"type": "list[int]", "default": [0]},
}


def test_static_arguments_of_the_right_type():
    f = wrapped(typed, {"x": "float32[n]"}, {"y": "float32[n]"}, static=TYPED)
    x = jnp.ones(2)
    assert_equal(f(x, causal=True, mode="sum", dims=(0, 1)), [2, 2])
    assert_equal(f(x, dims=[]), [1, 1])


@pytest.mark.parametrize(
    ("static", "match"),
    [
        ({"causal": 1}, "argument `causal`: expected a value of type `bool`; got 1"),
        ({"causal": None}, "argument `causal`: expected a value of type `bool`; got null"),
        ({"mode": "max"}, "argument `mode`: expected one of `mean`, `sum`; got `max`"),
        (
            {"dims": (0, 1.5)},
            r"argument `dims`: expected a value of type `list\[int\]`; got a list",
        ),
        ({"causal": "yes"}, "argument `causal`"),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_static_arguments_of_another_type(static, match, jit):
    f = wrapped(typed, {"x": "float32[n]"}, {"y": "float32[n]"}, static=TYPED)
    call = jax.jit(lambda x: f(x, **static)) if jit else lambda x: f(x, **static)
    with pytest.raises(SpecMismatchError, match=match):
        call(jnp.ones(2))


def test_a_static_argument_that_must_be_passed():
    f = wrapped(
        lambda x, *, k: x * k,
        {"x": "float32[n]"},
        {"y": "float32[n]"},
        static={"k": {"type": "int"}},
    )
    assert_equal(f(jnp.ones(2), k=3), [3, 3])
    with pytest.raises(
        SpecMismatchError, match="argument `k`: expected a value of type `int`; got n"
    ):
        f(jnp.ones(2))


def test_another_default_than_the_functions():
    static = {**TYPED, "dims": {"type": "list[int]", "default": [1]}}
    with pytest.raises(SpecError, match=r"the function's own default \(0,\) .*; got \(1,\)"):
        wrapped(typed, {"x": "float32[n]"}, {"y": "float32[n]"}, static=static)


def test_positional_static_arguments_and_optional_inputs_as_none():
    def f(x, mask, scale):
        return x * scale if mask is None else x * mask * scale

    inputs = {"x": "float32[n]", "mask": {"dtype": "like x", "shape": "[n]", "optional": True}}
    g = wrapped(f, inputs, {"y": "like x[n]"}, static={"scale": {"type": "float"}})
    assert_equal(g(jnp.ones(2), None, 2.0), [2, 2])
    assert_equal(g(jnp.ones(2), jnp.zeros(2), 2), [0, 0])


STATE = {
    "out": "float32[n]",
    # Not in the order in which JAX sorts keys.
    "state": {
        "h": "float32[n]",
        "c": {"dtype": "float32", "shape": "[n]", "differentiable": False},
    },
}


@pytest.mark.parametrize(
    "result",
    [
        lambda x: (x, {"h": x * 2, "c": x * 3}),
        lambda x: [x, {"c": x * 3, "h": x * 2}],
        lambda x: {"state": {"c": x * 3, "h": x * 2}, "out": x},
    ],
)
def test_groups_in_results_go_by_name(result):
    f = wrapped(result, {"x": "float32[n]"}, STATE)
    x = jnp.ones(2)
    flags = {sig.path: sig.differentiable for sig in f.plan(x).outputs}
    assert flags == {"out": True, "state['h']": True, "state['c']": False}
    state = f(x)["state"] if isinstance(f(x), dict) else f(x)[1]
    assert_equal(state["h"], [2, 2])

    def part(name):
        return lambda x: (f(x)["state"] if isinstance(f(x), dict) else f(x)[1])[name].sum()

    assert_equal(jax.grad(part("h"))(x), [2, 2])
    assert_equal(jax.grad(part("c"))(x), [0, 0])


def test_one_group_may_be_the_result_itself():
    group = {"pair": {"b": "float32[n]", "a": "int32[]"}}
    f = wrapped(
        lambda x: {"a": torch.tensor(1, dtype=torch.int32), "b": x}, {"x": "float32[n]"}, group
    )
    assert [sig.path for sig in f.plan(jnp.ones(2)).outputs] == ["pair['a']", "pair['b']"]


def test_groups_with_other_names_are_refused():
    f = wrapped(lambda x: (x, {"h": x, "d": x}), {"x": "float32[n]"}, STATE)
    with pytest.raises(
        SpecMismatchError, match=r"outputs: expected the names out, state\.h, state\.c; torch ret"
    ):
        f(jnp.ones(2))


def test_nested_lists_in_arguments_and_results():
    def f(layers, pair):
        return [layers[0]["w"] + pair[0], [layers[1]["w"] * pair[1]]]

    layer = {"w": "float32[n]"}
    g = wrapped(
        f,
        {"layers": [layer, layer], "pair": ["float32[n]", "float32[]"]},
        {"first": "float32[n]", "rest": ["float32[n]"]},
    )
    one = jnp.ones(2)
    first, rest = g([{"w": one}, {"w": 2 * one}], (one, jnp.float32(3)))
    assert_equal(first, [2, 2])
    assert_equal(rest[0], [6, 6])
    with pytest.raises(SpecMismatchError, match=r"input `layers\.1\.w`: expected dimension `n`"):
        g([{"w": one}, {"w": jnp.ones(3)}], (one, jnp.float32(3)))
    with pytest.raises(SpecMismatchError, match=r"`layers\.2\.w`: expected one of the inputs"):
        g([{"w": one}] * 3, (one, jnp.float32(3)))
