"""Bounds in contracts: what may be said, and what a change of it is for callers."""

import itertools

import pytest

from jaxtorch_bridge.errors import SpecError
from jaxtorch_bridge.spec.compare.diff_contracts import diff_specs
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.read_contract import dump_spec

HEAD = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}
INPUTS = {"x": "float32[n, 4]"}


def spec_of(outputs, inputs=INPUTS, **fields):
    return load_spec({**HEAD, "inputs": inputs, "outputs": outputs, **fields})


def array(shape="[k<=3]", dtype="float32", **fields):
    return {"dtype": dtype, "shape": shape, **fields}


COUNT = array("[]", "int32", counts="k")


def test_what_comes_back_and_what_torch_returns():
    spec = spec_of(
        {"kept": array("[k<=2*n, 4]", fill=-1), "more": "float32[k+1]", "count": "int32[]"}
    )
    back = [str(leaf.shape) for _, leaf in spec.output_leaves()]
    assert back == ["[2*n, 4]", "[2*n+1]", "[]"]
    returned = [str(leaf.shape) for _, leaf in spec.returned_leaves()]
    assert returned == ["[k, 4]", "[k+1]"]
    assert spec.counts == {("count",): "k"}
    assert str(spec.outputs["kept"]) == "float32[k<=2*n, 4]"


@pytest.mark.parametrize(
    "outputs",
    [
        {"a": "float32[k<=3]"},
        {
            "a": array(["k <= 2*n", 4], fill=0.5, overflow="cut"),
            "b": array("[k]", "bool", fill=True),
        },
        {"a": "float32[k<=3, m<=n]", "b": COUNT},
        {"a": [array(fill=float("inf")), {"b": array(dtype="int8", fill=-1)}]},
    ],
    ids=range(4),
)
def test_written_and_read_again(outputs, tmp_path):
    spec = spec_of(outputs)
    file = tmp_path / "f.yaml"
    file.write_text(dump_spec(spec))
    again = load_spec(file)
    assert again == spec
    assert again.digest() == spec.digest()
    assert again.bounds == spec.bounds
    assert diff_specs(spec, again) == ()


WRONG = {
    "unknown name in a bound": ({"a": "float32[k<=m]"}, "a bound over names that stand alone"),
    "name of an input": ({"a": "float32[n<=3]"}, "a bound on a name that no input has"),
    "two bounds": ({"a": "float32[k<=3]", "b": "float32[k<=4]"}, "`k<=3`, as another output says"),
    "two bounds in a shape": ({"a": "float32[k<=3, k<=4]"}, "`k<=3`, as another output says"),
    "falls": ({"a": "float32[k<=3]", "b": "float32[9-k]"}, "in sums and products alone"),
    "divides": ({"a": "float32[k<=3]", "b": "float32[9//(k+1)]"}, "in sums and products alone"),
    "arithmetic": ({"a": "float32[2*k<=3]"}, "a name alone before `<=`"),
    "negative": ({"a": "float32[k<=3-4]"}, "a size of 0 or more"),
    "twice": ({"a": "float32[k<=3<=4]"}, "`,` or `]`"),
    "nothing": ({"a": "float32[k<=]"}, "a dimension"),
    "rest": ({"a": "float32[...<=3]"}, "`,` or `]`"),
    "fill of integers": ({"a": array(dtype="int32", fill=0.5)}, "an integer from -2147483648"),
    "fill beyond": ({"a": array(dtype="uint8", fill=256)}, "an integer from 0 to 255, for uint8"),
    "fill of bools": ({"a": array(dtype="bool", fill=1)}, "true or false, for bool"),
    "fill as text": ({"a": array(fill="none")}, "fill"),
    "fill alone": ({"a": array("[n]", fill=1)}, "no `fill`, since no dimension"),
    "overflow": ({"a": array(overflow="drop")}, "one of `error`, `cut`"),
    "overflow alone": ({"a": array("[n]", overflow="cut")}, "no `overflow`, since no dimension"),
    "two overflows": (
        {"a": array(overflow="cut"), "b": array("[k]", overflow="error")},
        "`cut`, as another output says of `k`",
    ),
    "counts nothing": ({"a": array(), "b": array("[]", "int32", counts="q")}, "one of the dim"),
    "counts without bounds": ({"b": array("[]", "int32", counts="q")}, "a bound to count"),
    "counts in floats": ({"a": array(), "b": array("[]", counts="k")}, "an integer such as"),
    "counts in rows": ({"a": array(), "b": array("[2]", "int32", counts="k")}, "an integer such"),
    "counts in a group": ({"a": array(), "b": {"c": COUNT}}, "not within a group"),
}


@pytest.mark.parametrize(("outputs", "words"), WRONG.values(), ids=WRONG.keys())
def test_refused(outputs, words):
    with pytest.raises(SpecError) as caught:
        spec_of(outputs)
    assert words in str(caught.value)
    assert all(one.path.startswith("outputs.") for one in caught.value.problems)


@pytest.mark.parametrize("fields", [{"fill": 0}, {"overflow": "cut"}, {"counts": "k"}])
def test_inputs_have_none(fields):
    with pytest.raises(SpecError, match="which only outputs have"):
        spec_of({"y": "float32[n]"}, {"x": array("[n]", **fields)})
    with pytest.raises(SpecError, match="under `constraints` says the same"):
        spec_of({"y": "float32[n]"}, {"x": "float32[n<=3]"})


def test_a_count_needs_one_thing_to_count():
    one = spec_of({"a": array(), "count": "int64[]"})
    assert one.counts == {("count",): "k"}
    # Two bounds, a float, a row, another count: then it is the function's own.
    for outputs in (
        {"a": "float32[k<=3, m<=3]", "count": "int32[]"},
        {"a": array(), "count": "float32[]"},
        {"a": array(), "count": "int32[1]"},
        {"a": array(), "count": "int32[]", "other": COUNT},
        {"a": "float32[k]", "count": "int32[]"},
    ):
        assert ("count",) not in spec_of(outputs).counts


CHANGES = {
    "raised": (array(), array("[k<=4]"), "breaking", "changed from `3` to `4`"),
    "filled otherwise": (array(), array(fill=1), "breaking", "filled with 1 instead of 0"),
    "written out": (array(), array(fill=0, overflow="error"), "neutral", "means the same"),
    "cut": (array(), array(overflow="cut"), "breaking", "more than the bound is lost"),
    "no longer cut": (array(overflow="cut"), array(), "breaking", "is an error, where it was cut"),
    "now bounded": (array("[3]"), array(), "breaking", "may now hold fewer values"),
    "no longer bounded": (array(), array("[3]"), "additive", "as many values as its size"),
    "renamed": (array(), array("[m<=3]"), "neutral", "means the same"),
    "free": (array(), array("[k]"), "breaking", "is no longer known before the call"),
}


@pytest.mark.parametrize(("old", "new", "level", "words"), CHANGES.values(), ids=CHANGES.keys())
def test_changes(old, new, level, words):
    changes = diff_specs(spec_of({"y": old}), spec_of({"y": new}))
    assert changes[0].level == level
    assert any(words in change.text for change in changes)


def test_counts_that_come_and_go():
    own, counted = ({"a": array(), "b": one} for one in ("int32[]", COUNT))
    for old, new in itertools.permutations([own, counted]):
        (change,) = diff_specs(spec_of(old), spec_of(new))
        assert (change.level, change.path) == ("breaking", "outputs.b")
