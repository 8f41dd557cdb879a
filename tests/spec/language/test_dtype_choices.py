"""Arrays of several dtypes, and arrays that have the dtype of an input."""

from __future__ import annotations

import pytest

from jaxtorch_bridge.errors import SpecError, SpecMismatchError
from jaxtorch_bridge.spec.enforce.inputs import bind_inputs
from jaxtorch_bridge.spec.enforce.outputs import check_outputs, resolve_outputs
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.read_contract import dump_spec, read_spec
from jaxtorch_bridge.spec.language.array_dtype import Dtype


def contract(inputs, outputs=None):
    head = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}
    return load_spec({**head, "inputs": inputs, "outputs": outputs or {"y": "float32[]"}})


def problem_of(inputs, outputs=None):
    with pytest.raises(SpecError) as caught:
        contract(inputs, outputs)
    (problem,) = caught.value.problems
    return f"{problem.path}: expected {problem.expected}; got {problem.found}"


def bound(spec, x64=False, **arrays):
    leaves = {tuple(path.split(".")): one for path, one in arrays.items()}
    return bind_inputs(spec, leaves, x64=x64)


@pytest.mark.parametrize(
    "dtype",
    [["bfloat16", "float32"], ["float32", "bfloat16"], "float32|bfloat16", " bfloat16 | float32"],
)
def test_the_order_of_choices_means_nothing(dtype):
    spec = contract({"x": {"dtype": dtype, "shape": "[n]"}})
    assert spec.inputs["x"].dtype == Dtype(("float32", "bfloat16"))
    assert str(spec.inputs["x"]) == "float32|bfloat16[n]"
    assert spec == contract({"x": "bfloat16|float32[n]"})
    assert spec.digest() == contract({"x": "bfloat16|float32[n]"}).digest()


@pytest.mark.parametrize("like", ["like x[n]", {"dtype": "like x", "shape": "[n]"}])
def test_forms_of_following(like):
    spec = contract({"x": "float32[n]"}, {"y": like})
    long = contract({"x": "float32[n]"}, {"y": {"dtype": {"like": "x"}, "shape": ["n"]}})
    assert spec == long
    assert spec.dtypes_of(spec.outputs["y"]) == ("float32",)
    assert str(spec.outputs["y"]) == "like x[n]"


def test_one_dtype_in_a_list_is_that_dtype():
    assert contract({"x": {"dtype": ["int8"], "shape": []}}) == contract({"x": "int8[]"})


def test_contracts_are_written_and_read_back():
    inputs = {
        "x": "float32|bfloat16[n]",
        "p": {
            "a[0]": "float16|float64[]",
            "w.x": {"dtype": {"like": "x"}, "shape": [], "doc": "d"},
        },
        "z": {"dtype": "like x", "shape": "[n]", "optional": True},
    }
    spec = contract(inputs, {"y": {"dtype": {"like": "p.a[0]"}, "shape": "[n]"}})
    assert read_spec(dump_spec(spec).encode(), "f.yaml") == spec
    assert load_spec(spec.to_dict()) == spec


@pytest.mark.parametrize(
    ("inputs", "outputs", "match"),
    [
        ({"x": "float32|float33[n]"}, None, "x: expected a dtype that both .*mean `float32`"),
        ({"x": "float32|float32[n]"}, None, "x: expected each dtype once; got `float32` twice"),
        ({"x": "float32|[n]"}, None, "x: expected a dtype that both"),
        ({"x": {"dtype": ["int4"], "shape": []}}, None, r"x.dtype.0: .*4-bit integers"),
        ({"x": {"dtype": [], "shape": []}}, None, "x.dtype: expected at least one dtype"),
        ({"x": {"dtype": [3], "shape": []}}, None, "x.dtype.0: expected the name of a dtype"),
        ({"x": {"dtype": ["int8", "int8"], "shape": []}}, None, "x.dtype.1: .*once"),
        (
            {"x": {"dtype": {"like": 3}, "shape": []}},
            None,
            "x.dtype: expected a dtype.*got like: 3",
        ),
        ({"x": {"dtype": {"likes": "x"}, "shape": []}}, None, "x.dtype: .*got other fields"),
        ({"x": "int8[]"}, {"y": "like z[]"}, "outputs.y.dtype: expected one of the inputs `x`"),
        ({"image": "int8[]"}, {"y": "like imaeg[]"}, "did you mean `image`"),
        ({"x": "int8[]", "z": "like x[]"}, {"y": "like z[]"}, "a dtype of its own; got `z`"),
        ({"x": "like x[]"}, None, "a dtype of its own; got `x`, which is `like x`"),
        ({"x": "int8[]"}, {"y": "int8[]", "z": "like y[]"}, "z.dtype: .*one of the inputs `x`"),
        (
            {"x": {"dtype": "int8", "shape": [], "optional": True}},
            {"y": "like x[]"},
            "an input that every call passes; got `x`, which is optional",
        ),
        (
            {"a": {"b": "int8[]"}, "c": {"a.b": "int8[]"}, "d": "like a.b[]", "a.b": "int8[]"},
            None,
            "expected a Python identifier",
        ),
        (
            {"x": {"dtype": ["int8", "bool"], "shape": [], "differentiable": True}},
            None,
            "a float or complex dtype",
        ),
    ],
)
def test_what_is_refused(inputs, outputs, match):
    import re

    assert re.search(match, problem_of(inputs, outputs))


def test_a_name_that_two_inputs_have():
    inputs = {"a": {"b": {"c": "int8[]"}, "b.c": "int8[]"}}
    assert "a name that only one input has" in problem_of(inputs, {"y": "like a.b.c[]"})


def test_the_place_of_a_wrong_dtype():
    text = b"""schema: jaxtorch/1
name: f
version: 1.0.0
inputs:
  x: {shape: [n], dtype: [float32, float33]}
  z: {shape: [n], dtype: {like: w}}
outputs: {y: "like v[n]"}
"""
    with pytest.raises(SpecError) as caught:
        read_spec(text, "f.yaml")
    assert [str(one).partition(": expected")[0] for one in caught.value.problems] == [
        "f.yaml:5:36: `inputs.x.dtype.1`"
    ]
    with pytest.raises(SpecError) as caught:
        read_spec(text.replace(b"float33", b"float16"), "f.yaml")
    assert str(caught.value.problems[0]).startswith(
        "f.yaml:6:26: `inputs.z.dtype`: expected one of"
    )
    with pytest.raises(SpecError) as caught:
        read_spec(text.replace(b"float33", b"float16").replace(b"like: w", b"like: x"), "f.yaml")
    assert str(caught.value.problems[0]).startswith("f.yaml:7:14: `outputs.y.dtype`: expected one")


def test_gradients_flow_where_a_chosen_dtype_has_them():
    spec = contract({"x": "float32|int32[n]", "i": "int8|bool[n]"}, {"y": "like x[n]"})
    assert spec.inputs["x"].differentiable
    assert not spec.inputs["i"].differentiable
    assert spec.outputs["y"].differentiable


QKV = {"q": "float32|bfloat16[n]", "k": "like q[n]", "scale": "float32[]"}


def test_a_call_decides():
    spec = contract(QKV, {"y": "like q[n]"})
    for dtype in ("float32", "bfloat16"):
        sizes = bound(spec, q=((2,), dtype), k=((2,), dtype), scale=((), "float32"))
        assert dict(sizes.dtypes)[("q",)] == dict(sizes.dtypes)[("k",)] == dtype
        assert resolve_outputs(spec, sizes) == ((("y",), (2,), dtype),)
        check_outputs(spec, sizes, [((2,), dtype)], x64=False, when="when tracing")


def test_other_dtypes_are_refused():
    spec = contract(QKV, {"y": "like q[n]"})
    with pytest.raises(
        SpecMismatchError,
        match=r"f@1\.0\.0, input `q`: expected dtype float32 or bfloat16; got float16 in shape \(2",
    ):
        bound(spec, q=((2,), "float16"), k=((2,), "float16"), scale=((), "float32"))
    with pytest.raises(
        SpecMismatchError,
        match=r"input `k`: expected dtype bfloat16, that of `q`; got float32 in shape \(2,\)",
    ):
        bound(spec, q=((2,), "bfloat16"), k=((2,), "float32"), scale=((), "float32"))
    sizes = bound(spec, q=((2,), "bfloat16"), k=((2,), "bfloat16"), scale=((), "float32"))
    with pytest.raises(
        SpecMismatchError,
        match="output `y`: expected dtype bfloat16, that of `q`; torch returned float32",
    ):
        check_outputs(spec, sizes, [((2,), "float32")], x64=False, when="when tracing")


def test_an_input_may_follow_a_later_one():
    spec = contract({"k": "like q[n]", "q": "float32|bfloat16[n]"})
    bound(spec, k=((2,), "bfloat16"), q=((2,), "bfloat16"))
    with pytest.raises(SpecMismatchError, match="input `k`: expected dtype bfloat16, that of `q`"):
        bound(spec, k=((2,), "float32"), q=((2,), "bfloat16"))


def test_an_output_of_several_dtypes_is_what_torch_returns():
    spec = contract({"x": "float32[n]"}, {"y": "float32|float16[n]"})
    sizes = bound(spec, x=((2,), "float32"))
    assert resolve_outputs(spec, sizes) is None
    for dtype in ("float32", "float16"):
        check_outputs(spec, sizes, [((2,), dtype)], x64=False, when="when tracing")
    with pytest.raises(
        SpecMismatchError, match="expected dtype float16 or float32; torch returned"
    ):
        check_outputs(spec, sizes, [((2,), "bfloat16")], x64=False, when="when tracing")


@pytest.mark.parametrize(
    ("choices", "given", "x64", "meant"),
    [
        ("int32|int64", "int32", False, "int32"),
        ("float32|int64", "int32", False, "int64"),
        ("float32|int64", "int32", True, "int64"),
        ("float64|bfloat16", "float32", False, "float64"),
        ("float64|float32", "float32", False, "float32"),
    ],
)
def test_which_of_the_contracts_dtypes_an_array_stands_for(choices, given, x64, meant):
    spec = contract({"x": f"{choices}[n]"}, {"y": "like x[n]"})
    sizes = bound(spec, x64=x64, x=((2,), given))
    assert dict(sizes.dtypes) == {("x",): meant}
    check_outputs(spec, sizes, [((2,), meant)], x64=x64, when="when tracing")
