"""`doc` on every level of a contract: groups and constraints, which are no models of their own."""

from __future__ import annotations

import pytest

from jaxtorch_bridge.errors import SpecError, SpecMismatchError
from jaxtorch_bridge.spec.enforce.inputs import bind_inputs
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.read_contract import dump_spec

TEXT = """\
schema: jaxtorch/1
name: f
version: 1.0.0
inputs:
  x: float32[n, dim]
  params:
    doc: float32[dim]
    layers:
      - {w: "float32[dim, dim]"}
      - {w: "float32[dim, dim]"}
outputs:
  state: {h: "float32[n]"}
groups:
  inputs.params: The weights.
  inputs.params.layers: |
    From the first
    to the last.
  inputs.params.layers.0: Closest to the data.
  outputs.state: For the next call.
constraints:
  - n > 0
  - rule: dim % 8 == 0
    doc: |
      Vector units take
      eight at a time.
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load_text(text):
        (tmp_path / "c.yaml").write_text(text)
        return load_spec("c.yaml")

    return load_text


def test_groups_and_lists_have_remarks_and_may_hold_an_array_called_doc(load):
    spec = load(TEXT)
    assert str(spec.inputs["params"]["doc"]) == "float32[dim]"
    assert spec.groups["inputs.params"] == "The weights."
    assert spec.groups["inputs.params.layers"] == "From the first\nto the last.\n"
    assert spec.where("groups.inputs.params.layers.0") == "c.yaml:18:27"
    assert load_spec(spec.to_dict()) == spec
    assert load(dump_spec(spec)) == spec


def test_remarks_are_not_what_a_contract_says(load):
    spec = load(TEXT)
    data = spec.to_dict()
    del data["groups"]
    data["constraints"] = [str(one) for one in spec.constraints]
    plain = load_spec(data)
    assert plain != spec
    assert plain.digest() == spec.digest()


@pytest.mark.parametrize(
    ("line", "expected", "found"),
    [
        ("inputs.prams: a", "did you mean `inputs.params`?", "got `inputs.prams`"),
        ("params: a", "one of the groups and lists `inputs.params`, ", "got `params`"),
        ("inputs: a", "one of the groups", "got `inputs`"),
        ("inputs.x: a", "an array has a `doc` of its own", "got `inputs.x` of an array"),
        ("inputs.params.doc: a", "an array has a `doc` of its own", "of an array"),
        ("inputs.params: 3", "a remark (a string)", "got 3"),
        ("3: a", "a string as name", "got 3"),
    ],
)
def test_remarks_on_no_group_are_told_with_their_place(load, line, expected, found):
    text = TEXT.replace("inputs.params: The weights.", line)
    with pytest.raises(SpecError) as caught:
        load(text)
    problem = str(caught.value.problems[0])
    assert problem.startswith("c.yaml:14:" + ("18" if line.endswith(" 3") else "3"))
    assert expected in problem
    assert found in problem


def test_a_path_of_two_groups_is_refused():
    inputs = {"p": {"a.b": ["int8[]"], "a": {"b": ["int8[]"]}}}
    head = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0", "inputs": inputs}
    with pytest.raises(SpecError, match=r"expected a path of one group; got `inputs\.p\.a\.b` of"):
        load_spec({**head, "outputs": {"y": "int8[]"}, "groups": {"inputs.p.a.b": "Which?"}})


def test_a_remark_among_the_arrays_of_a_group_is_told_where_it_belongs(load):
    text = TEXT.replace("doc: float32[dim]", "doc: The weights.")
    with pytest.raises(SpecError, match=r"7:10: `inputs\.params\.doc`: .*under `groups`"):
        load(text)


@pytest.mark.parametrize(
    ("constraint", "place", "message"),
    [
        ("{doc: a}", "21:5", "expected a field `rule`; got nothing"),
        ("{rule: n > 0, dox: a}", "21:19", "(did you mean `doc`?); got the unknown field `dox`"),
        ("{rule: n > 0, doc: [a]}", "21:24", "expected a string; got a list"),
        ("{rule: n >, doc: a}", "21:12", "`constraints.0.rule`: expected a dimension"),
        ("{rule: 3}", "21:12", "expected a constraint, such as `dim % heads == 0`; got 3"),
        ("{rule: k > 0, doc: a}", "21:5", "one of the dimensions of the inputs"),
        ("[n > 0]", "21:5", "expected a constraint, such as `dim % heads == 0`; got a list"),
    ],
)
def test_constraints_with_remarks_are_read_with_care(load, constraint, place, message):
    with pytest.raises(SpecError) as caught:
        load(TEXT.replace("- n > 0", f"- {constraint}"))
    (problem,) = map(str, caught.value.problems)
    assert problem.startswith(f"c.yaml:{place}: `constraints.0")
    assert message in problem


def test_a_constraint_that_is_not_met_says_its_remark(load):
    shapes = {("x",): ((2, 4), "float32"), ("params", "doc"): ((4,), "float32")}
    shapes |= {("params", "layers", str(i), "w"): ((4, 4), "float32") for i in range(2)}
    words = r"`dim%8 == 0` \(Vector units take eight at a time\): expected it to hold; got 4 == 0"
    with pytest.raises(SpecMismatchError, match=words):
        bind_inputs(load(TEXT), shapes, x64=False)
