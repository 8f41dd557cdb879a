"""jaxtyping's annotations of a torch function as its contract."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple, Optional, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jaxtyping import BFloat16, Float, Float32, Int, Int64, Shaped

from comparing import assert_equal
from jaxtorch_bridge import SpecError, SpecMismatchError, jax_callable
from jaxtorch_bridge.spec.annotations.read_function import read_annotations

Tensor = torch.Tensor
HEAD = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}


def dense(
    x: Float32[Tensor, "*batch n"],
    w: Float32[Tensor, "n m"],
    bias: Float32[Tensor, "m"] | None = None,
    *,
    scale: float = 1.0,
    act: Literal["relu", "none"] = "none",
) -> Float32[Tensor, "*batch m"]:
    y = x @ w * scale
    y = y if bias is None else y + bias
    return y.relu() if act == "relu" else y


def test_they_are_read():
    spec = jax_callable(dense).spec
    assert {name: str(one) for name, one in spec.inputs.items()} == {
        "x": "float32[..., n]",
        "w": "float32[n, m]",
        "bias": "float32[m]",
    }
    assert spec.inputs["bias"].optional
    assert str(spec.outputs["out"]) == "float32[..., m]"
    assert str(spec.static["scale"].type) == "float"
    assert spec.static["act"].choices == ("relu", "none")
    assert spec.unread == ()
    assert spec.label == "dense"
    assert spec.where("inputs.x").partition(":")[0] == __file__


@pytest.mark.parametrize("jit", [False, True])
def test_they_are_enforced(jit):
    f = jax_callable(dense)
    call = jax.jit(f, static_argnames="act") if jit else f
    x, w = jnp.ones((2, 3)), jnp.ones((3, 4))
    assert_equal(call(x, w), np.full((2, 4), 3.0))
    with pytest.raises(
        SpecMismatchError,
        match=r"dense, input `w`: expected dimension `n` \(axis 0\) to be 3.*test_annotations\.py",
    ):
        call(x, jnp.ones((2, 4)))
    with pytest.raises(SpecMismatchError, match="input `x`: expected dtype float32; got float16"):
        call(x.astype("float16"), w)
    with pytest.raises(
        SpecMismatchError, match="`act`: expected one of `relu`, `none`; got `tanh`"
    ):
        call(x, w, act="tanh")


def test_results_are_enforced():
    @jax_callable
    def wrong(x: Float32[Tensor, "n"]) -> Float32[Tensor, "n+1"]:
        return x

    with pytest.raises(
        SpecMismatchError,
        match=r"wrong, output `out`: expected dimension `n\+1` \(axis 0\) to be 3; torch ret",
    ):
        wrong(jnp.ones(2))


def test_they_give_the_outputs_where_values_decide():
    @jax_callable
    def front(x: Float32[Tensor, "n"]) -> Float32[Tensor, "n"]:
        return x[: int((x > 0).sum())]

    assert front.plan(jax.ShapeDtypeStruct((3,), "float32")).inference.how == "contract"
    assert_equal(jax.jit(front)(jnp.ones(3)), [1, 1, 1])
    with pytest.raises(Exception, match=r"output `out`: planned float32\[3\], but torch returned"):
        jax.block_until_ready(front(jnp.array([1.0, -1.0, 1.0])))


def test_integers_become_what_the_annotation_says():
    @jax_callable
    def pick(x: Float32[Tensor, "n"], i: Int64[Tensor, "k"]) -> Float32[Tensor, "k"]:
        return x[i]

    i = jnp.array([1, 0])
    assert pick.plan(jnp.ones(2), i).inputs[1].torch_dtype == "int64"
    assert_equal(pick(jnp.arange(2.0), i), [1, 0])


def test_what_they_do_not_speak_of_is_free():
    @jax_callable
    def f(x: Float32[Tensor, "n"], y, z: Tensor, *args: Any, flag=False, **kwargs: Any):
        return x * y + z + sum(args)

    assert list(f.spec.inputs) == ["x"]
    assert dict(f.spec.unread).keys() == {"y", "z", "args", "flag", "kwargs", "return"}
    assert_equal(
        f(jnp.ones(2), jnp.ones((3, 2)), jnp.ones(()), jnp.ones(1), flag=True, other="a"),
        np.full((3, 2), 3.0),
    )
    with pytest.raises(SpecMismatchError, match="f, input `x`: expected rank 1"):
        f(jnp.ones((2, 2)), jnp.ones(2), jnp.ones(2))
    text = f.explain(jnp.ones(2), jnp.ones(2), jnp.ones(2))
    assert "note         annotation of y: not enforced, no annotation" in text


def test_without_an_array_that_has_a_shape_there_is_no_contract():
    def plain(x: Tensor, flag: bool = False) -> Tensor:
        return x

    assert jax_callable(plain).spec is None
    assert jax_callable(lambda x: x).spec is None
    assert jax_callable(torch.sin).spec is None


class Parameters(TypedDict):
    weight: Float32[Tensor, "n m"]
    bias: Optional[Float32[Tensor, "m"]]  # noqa: UP045


@dataclasses.dataclass
class State:
    h: Float32[Tensor, "b"]
    c: Float32[Tensor, "b"]


class Two(NamedTuple):
    first: Float32[Tensor, "b"]
    rest: tuple[Float32[Tensor, ""], Int[Tensor, "b"]]


def nested(params: Parameters, state: State, both: Two) -> State:
    return State(state.h + both.first, state.c)


def test_trees():
    spec = jax_callable(nested).spec
    assert [(".".join(path), str(leaf)) for path, leaf in spec.input_leaves()][:5] == [
        ("params.weight", "float32[n, m]"),
        ("params.bias", "float32[m]"),
        ("state.h", "float32[b]"),
        ("state.c", "float32[b]"),
        ("both.first", "float32[b]"),
    ]
    assert dict(spec.input_leaves())[("params", "bias")].optional
    assert [path for path, _ in spec.output_leaves()] == [("h",), ("c",)]
    f = jax_callable(nested)
    one = jnp.ones(2)
    params = {"weight": jnp.ones((3, 4)), "bias": jnp.ones(4)}
    both = Two(one, (jnp.ones(()), jnp.arange(2)))
    result = f(params, State(one, 2 * one), both)
    assert_equal(result.h, [2, 2])
    assert_equal(result.c, [2, 2])
    with pytest.raises(SpecMismatchError, match=r"input `state\.c`: expected dimension `b`"):
        f(params, State(one, jnp.ones(3)), both)


@pytest.mark.parametrize(
    ("annotation", "found"),
    [
        (Float[Tensor, "n"], "float16|float32|float64|bfloat16|float8_e4m3fn"),
        (Float32[Tensor, "n"] | BFloat16[Tensor, "n"], "float32|bfloat16[n]"),
        (Float32[Tensor | np.ndarray, "n 3"], "float32[n, 3]"),
        (Shaped[Tensor, ""], "bool|int8"),
        (Float32[Tensor, "... rows=4"], "float32[..., 4]"),
        (Float32[Tensor, "_ _"], "float32[_0, _1]"),
        (Float32[Tensor, "2*n (n+1)//2"], "float32[2*n, (n+1)//2]"),
        (Float32[Float32[Tensor, "n"], "b"], "float32[b, n]"),
    ],
)
def test_forms(annotation, found):
    def f(x):
        return x

    f.__annotations__ = {"x": annotation}
    assert str(read_annotations(f).inputs["x"]).startswith(found)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Float32[Tensor, "#n"], "`#n` is no dimension"),
        (Float32[Tensor, "{n}"], "`{n}` is no dimension"),
        (Float32[Tensor, "n**2"], r"`n**2` is no dimension"),
        (list[Float32[Tensor, "n"]], "arrays in a container of any length"),
        (dict[str, Float32[Tensor, "n"]], "arrays in a container of any length"),
        (tuple[Float32[Tensor, "n"], ...], "arrays in a container of any length"),
        (tuple[Float32[Tensor, "n"], int], "arrays and other values side by side"),
        (Float32[Tensor, "n"] | Float32[Tensor, "n n"], "a choice between different arrays"),
        ("Nowhere[Tensor, 'n']", "does not resolve"),
        (Tensor, "neither an array with a shape nor a plain type"),
    ],
)
def test_what_no_contract_can_say(annotation, reason):
    def f(x):
        return x

    f.__annotations__ = {"x": annotation}
    assert reason in read_annotations(f).unread["x"]


def test_methods_partials_and_modules():
    class Layer(torch.nn.Module):
        def forward(self, x: Float32[Tensor, "b 2"]) -> Float32[Tensor, "b"]:
            return x.sum(1)

        @jax_callable
        def twice(self, x: Float32[Tensor, "b 2"]) -> Float32[Tensor, "b 2"]:
            return x * 2

    layer = Layer()
    for f in (jax_callable(layer), jax_callable(layer.forward), layer.twice):
        assert f(jnp.ones((3, 2))).shape[0] == 3
        with pytest.raises(SpecMismatchError, match=r"input `x`: expected axis 1 to have size 2"):
            f(jnp.ones((3, 4)))
    partial = jax_callable(functools.partial(dense, scale=2.0))
    assert_equal(partial(jnp.ones((1, 2)), jnp.ones((2, 1))), [[4.0]])
    with pytest.raises(SpecMismatchError, match="dimension `n`"):
        partial(jnp.ones((1, 2)), jnp.ones((3, 1)))


def declared(**changes):
    inputs = {
        "x": "float32[..., k]",
        "w": "float32[k, m]",
        "bias": {"dtype": "float32", "shape": "[m]", "optional": True},
    }
    static = {"scale": 1.0, "act": {"choices": ["relu", "none"], "default": "none"}}
    outputs = {"y": "float32[..., m]"}
    parts = {"inputs": inputs, "static": static, "outputs": outputs}
    for path, value in changes.items():
        part, name = path.split("_")
        parts[part] = {**parts[part], name: value}
    return {**HEAD, **parts}


def test_a_contract_that_agrees():
    f = jax_callable(dense, spec=declared())
    assert f.spec.label == "f@1.0.0"
    assert_equal(f(jnp.ones((1, 2)), jnp.ones((2, 1))), [[2.0]])


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs_x": "float32[b, k]", "outputs_y": "float32[b, m]"},
        {"inputs_bias": "float32[m]"},
        {"inputs_w": "float32[k, 3]", "inputs_bias": "float32[3]", "outputs_y": "float32[..., 3]"},
        {"static_act": {"choices": ["relu"], "default": "relu"}},
        {"static_scale": {"type": "int|float", "default": 1.0}},
        {"outputs_y": "float32[..., free]"},
    ],
)
def test_a_contract_may_ask_for_more_and_promise_less(changes):
    spec = declared(**changes)
    if "static_act" in changes:
        del spec["static"]["act"]["default"]
    jax_callable(dense, spec=spec)


@pytest.mark.parametrize(
    ("changes", "path", "annotated", "contract"),
    [
        ({"inputs_x": "float16[..., k]"}, "inputs.x", "float32[..., n]", "float16[..., k]"),
        (
            {"inputs_x": "float32|float16[..., k]"},
            "inputs.x",
            "float32[..., n]",
            "float16|float32[..., k]",
        ),
        ({"inputs_w": "float32[j, m]"}, "inputs.w", "float32[n, m]", "float32[j, m]"),
        ({"inputs_w": "float32[k]"}, "inputs.w", "float32[n, m]", "float32[k]"),
        ({"inputs_w": {"a": "float32[k, m]"}}, "inputs.w.a", "no such array", "float32[k, m]"),
        (
            {"inputs_w": {"dtype": "float32", "shape": "[k, m]", "optional": True}},
            "inputs.w",
            "float32[n, m], always passed",
            "float32[k, m], optional",
        ),
        ({"outputs_y": "float16[..., m]"}, "outputs.y", "float32[..., m]", "float16[..., m]"),
        ({"outputs_y": "float32[..., k]"}, "outputs.y", "float32[..., m]", "float32[..., k]"),
        ({"outputs_z": "float32[..., m]"}, "outputs", "`out` float32[..., m]", "`z` float32"),
        ({"static_scale": {"type": "float|str", "default": 1.0}}, "static.scale", "`float`", "str"),
        (
            {"static_act": {"choices": ["relu", "tanh"]}},
            "static.act",
            "one of `relu`, `none`",
            "one of `relu`, `tanh`",
        ),
        ({"static_act": {"type": "str", "default": "none"}}, "static.act", "`relu`", "`str`"),
    ],
)
def test_a_contract_that_disagrees_shows_both(changes, path, annotated, contract):
    with pytest.raises(SpecError) as caught:
        jax_callable(dense, spec=declared(**changes))
    (problem,) = [one for one in caught.value.problems if one.path == path]
    assert "what the function's annotation says" in problem.expected
    assert annotated in problem.expected
    assert "test_annotations.py" in problem.expected
    assert contract in problem.found
    assert "[contract f@1.0.0" in problem.found


def test_an_input_that_is_static_in_the_annotations():
    spec = {**HEAD, "inputs": {"x": "float32[n]", "k": "int32[]"}, "outputs": {"y": "float32[n]"}}

    def f(x: Float32[Tensor, "n"], k: int) -> Float32[Tensor, "n"]:
        return x * k

    with pytest.raises(SpecError, match=r"`inputs\.k`: expected what .*a static argument, `int`"):
        jax_callable(f, spec=spec)
    swapped = {**HEAD, "inputs": {}, "static": {"x": {"type": "int"}}, "outputs": {"y": "int8[]"}}
    with pytest.raises(SpecError, match=r"`static\.x`: .*float32\[n\]"):
        jax_callable(f, spec=swapped)


def test_a_square_is_more_than_the_contract_asks_for():
    def square(x: Float32[Tensor, "n n"]) -> Float32[Tensor, "n"]:
        return x.diagonal()

    spec = {**HEAD, "inputs": {"x": "float32[n, m]"}, "outputs": {"y": "float32[n]"}}
    with pytest.raises(
        SpecError, match=r"annotation says, float32\[n, n\] .*; got float32\[n, m\]"
    ):
        jax_callable(square, spec=spec)


def test_gradients_and_batches_of_an_annotated_function():
    f = jax_callable(dense)
    x, w = jnp.ones((2, 3)), jnp.ones((3, 4))
    assert_equal(jax.grad(lambda x: f(x, w).sum())(x), np.full((2, 3), 4.0))
    assert jax.vmap(f, in_axes=(0, None))(jnp.ones((5, 2, 3)), w).shape == (5, 2, 4)
