from __future__ import annotations

import ast
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtorch_bridge.spec.compare.change import highest
from jaxtorch_bridge.spec.compare.diff_contracts import diff_specs, unsaid_by_version
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.language.versions import next_version, parse_version, version_problem
from jaxtorch_bridge.spec.model import CallableSpec

BASE: dict[str, Any] = {
    "schema": "jaxtorch/1",
    "name": "attention",
    "version": "1.2.3",
    "function": "lib:attention",
    "inputs": {
        "q": "float32[batch, seq, dim]",
        "k": "float32[batch, seq, dim]",
        "label": "int64[batch]",
        "mask": {
            "dtype": "float32",
            "shape": "[batch, 4]",
            "optional": True,
            "differentiable": False,
        },
    },
    "static": {"causal": False},
    "outputs": {
        "out": "float32[batch, seq+1, dim]",
        "found": "int64[count]",
        "also": "int64[count]",
    },
    "vjp_depth": 2,
    "residuals": "tape",
    "sharding": {"batch": "data"},
}


def changed(path: str = "", value: object = None, **fields: object) -> CallableSpec:
    data = copy.deepcopy(BASE)
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    if value is not None:
        place[last] = value
    elif path:
        del place[last]
    return load_spec({**data, **fields})


OLD = load_spec(BASE)


def found(old: CallableSpec, new: CallableSpec) -> list[tuple[str, str]]:
    return [(one.level, one.path) for one in diff_specs(old, new)]


def inputs(**arrays: object) -> CallableSpec:
    return changed(inputs={**BASE["inputs"], **arrays})


def outputs(**arrays: object) -> CallableSpec:
    return changed(outputs={**BASE["outputs"], **arrays})


LEAF = {"dtype": "float32", "shape": "[batch, seq, dim]"}
CASES = {
    "required input": (inputs(extra="float32[]"), [("breaking", "inputs.extra")]),
    "optional input": (
        inputs(extra={"dtype": "int32", "shape": "[batch]", "optional": True}),
        [("additive", "inputs.extra")],
    ),
    "optional input in front": (
        changed(
            inputs={"e": {"dtype": "int32", "shape": "[]", "optional": True}, **BASE["inputs"]}
        ),
        [("breaking", "inputs.e")],
    ),
    "input removed": (changed("inputs.mask"), [("breaking", "inputs.mask")]),
    "input required": (
        changed("inputs.mask.optional", False),
        [("breaking", "inputs.mask")],
    ),
    "input optional": (inputs(k={**LEAF, "optional": True}), [("additive", "inputs.k")]),
    "input order": (
        changed(inputs=dict(reversed(BASE["inputs"].items()))),
        [("breaking", "inputs")],
    ),
    "input dtype": (changed("inputs.mask.dtype", "float64"), [("breaking", "inputs.mask")]),
    "32-bit only": (inputs(label="int32[batch]"), [("breaking", "inputs.label")]),
    "dimension fixed": (
        changed("inputs.q", "float32[batch, 8, dim]"),
        [("breaking", "inputs.q"), ("additive", "inputs.k")],
    ),
    "sizes apart": (inputs(k="float32[batch, keys, dim]"), [("additive", "inputs.k")]),
    "size freed": (changed("inputs.mask.shape", "[batch, n]"), [("additive", "inputs.mask")]),
    "size changed": (changed("inputs.mask.shape", "[batch, 5]"), [("breaking", "inputs.mask")]),
    "sizes equal": (changed("inputs.mask.shape", "[batch, dim]"), [("breaking", "inputs.mask")]),
    "rank": (changed("inputs.label", "int64[batch, 1]"), [("breaking", "inputs.label")]),
    "any rank": (changed("inputs.label", "int64[..., batch]"), [("additive", "inputs.label")]),
    "differentiable": (
        changed("inputs.mask.differentiable", True),
        [("breaking", "inputs.mask")],
    ),
    "not differentiable": (inputs(q={**LEAF, "differentiable": False}), [("breaking", "inputs.q")]),
    "input doc": (inputs(q={**LEAF, "doc": "queries"}), [("neutral", "inputs.q")]),
    "output added": (outputs(more="float32[]"), [("breaking", "outputs.more")]),
    "output removed": (changed("outputs.also"), [("breaking", "outputs.also")]),
    "output order": (
        changed(outputs=dict(reversed(BASE["outputs"].items()))),
        [("breaking", "outputs")],
    ),
    "output dtype": (
        outputs(out="bfloat16[batch, seq+1, dim]"),
        [("breaking", "outputs.out")],
    ),
    "output size": (outputs(out="float32[batch, seq, dim]"), [("breaking", "outputs.out")]),
    "output rank": (outputs(out="float32[batch, seq+1]"), [("breaking", "outputs.out")]),
    "the same sum": (outputs(out="float32[batch, 1+seq, dim]"), [("neutral", "")]),
    "output known": (outputs(also="int64[seq]"), [("additive", "outputs.also")]),
    "output freed": (outputs(out="float32[batch, len, dim]"), [("breaking", "outputs.out")]),
    "outputs apart": (outputs(also="int64[other]"), [("breaking", "outputs.also")]),
    "group": (changed("inputs.q", {"x": "float32[batch, seq, dim]"}), None),
    "static added": (changed("static", {"causal": False, "p": 0.5}), [("additive", "static.p")]),
    "static removed": (changed("static"), [("breaking", "static.causal")]),
    "static default": (changed("static", {"causal": True}), [("breaking", "static.causal")]),
    "static type": (
        changed("static", {"causal": 0}),
        [
            ("breaking", "static.causal"),
            ("breaking", "static.causal"),
            ("additive", "static.causal"),
        ],
    ),
    "depth lower": (changed("vjp_depth", 1), [("breaking", "vjp_depth")]),
    "depth higher": (changed("vjp_depth", 3), [("additive", "vjp_depth")]),
    "depth unlimited": (changed("vjp_depth"), [("additive", "vjp_depth")]),
    "residuals": (changed("residuals", "recompute"), [("neutral", "residuals")]),
    "vmap_method": (changed("vmap_method", "sequential"), [("neutral", "vmap_method")]),
    "concurrency": (changed("concurrency", "locked"), [("neutral", "concurrency")]),
    "verify": (changed("verify", True), [("neutral", "verify")]),
    "execution": (
        changed("execution", {"backend": "eager", "outputs": "copy"}),
        [("neutral", "execution.backend"), ("neutral", "execution.outputs")],
    ),
    "sharding added": (
        changed("sharding", {"batch": "data", "dim": "model"}),
        [("additive", "sharding.dim")],
    ),
    "sharding removed": (changed("sharding"), [("breaking", "sharding.batch")]),
    "sharding axis": (changed("sharding", {"batch": "x"}), [("breaking", "sharding.batch")]),
    "mutates": (changed("mutates", ["q"]), [("breaking", "mutates")]),
    "copies": (changed("copies", ["q", "k"]), [("neutral", "copies"), ("neutral", "copies")]),
    "random": (changed("random", "key"), [("breaking", "random")]),
    "function": (changed("function", "lib.ops:attention"), [("breaking", "function")]),
    "no function": (changed("function"), [("breaking", "function")]),
    "doc": (changed("doc", "What it does."), [("neutral", "doc")]),
    "name": (changed("name", "attn"), [("breaking", "name")]),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_change(case):
    new, expected = CASES[case]
    if expected is None:
        assert {level for level, _ in found(OLD, new)} == {"breaking"}
    else:
        assert found(OLD, new) == expected


@pytest.mark.parametrize("case", CASES)
def test_what_is_additive_is_breaking_when_taken_back(case):
    new, _ = CASES[case]
    forth = highest(one.level for one in diff_specs(OLD, new))
    back = highest(one.level for one in diff_specs(new, OLD))
    if forth == "additive":
        assert back == "breaking"
    assert (forth == "neutral") == (back == "neutral")


def test_a_dimension_renamed_everywhere_is_neutral():
    text = str(BASE).replace("batch", "rows")
    new = load_spec(ast.literal_eval(text))
    changes = diff_specs(OLD, new)
    assert [(one.level, one.text) for one in changes] == [
        ("neutral", "dimension `batch` renamed to `rows`")
    ]


def test_names_that_change_places_are_renamed():
    swapped = str(BASE).replace("seq", "?").replace("dim", "seq").replace("?", "dim")
    assert {one.level for one in diff_specs(OLD, load_spec(ast.literal_eval(swapped)))} == {
        "neutral"
    }


def test_leading_dimensions_that_become_free_keep_old_calls():
    small = {**BASE, "sharding": {}, "inputs": {"x": "float32[b, n]"}}
    old = load_spec({**small, "outputs": {"y": "float32[b, n+1]"}})
    small["inputs"] = {"x": "float32[..., n]"}
    new = load_spec({**small, "outputs": {"y": "float32[..., n+1]"}})
    assert found(old, new) == [("additive", "inputs.x")]
    assert highest(one.level for one in diff_specs(new, old)) == "breaking"


def test_places_of_both_files(tmp_path):
    text = "schema: jaxtorch/1\nname: f\nversion: 1.0.0\n{}inputs:\n  x: float32[n]\noutputs:\n"
    (tmp_path / "old.yaml").write_text(text.format("") + "  y: float32[n]\n")
    (tmp_path / "new.yaml").write_text(text.format("doc: d\n") + "  y: float32[n]\n  z: bool[]\n")
    old, new = load_spec(tmp_path / "old.yaml"), load_spec(tmp_path / "new.yaml")
    first, second = diff_specs(old, new)
    assert (first.path, first.level) == ("outputs.z", "breaking")
    assert first.old.endswith("old.yaml:7:3")
    assert first.new.endswith("new.yaml:9:6")
    assert (second.path, second.new.rsplit(":", 2)[1]) == ("doc", "4")


@pytest.mark.parametrize(
    ("old", "new", "level", "fine"),
    [
        ("1.2.3", "2.0.0", "breaking", True),
        ("1.2.3", "1.3.0", "breaking", False),
        ("1.2.3", "1.3.0", "additive", True),
        ("1.2.3", "1.2.4", "additive", False),
        ("1.2.3", "1.2.4", "neutral", True),
        ("1.2.3", "1.2.3", "neutral", False),
        ("1.2.3", "1.2.3", "none", True),
        ("1.2.3", "1.2.2", "none", False),
        ("0.2.3", "0.3.0", "breaking", True),
        ("0.2.3", "1.0.0", "breaking", True),
        ("0.2.3", "0.2.4", "breaking", False),
        ("0.2.3", "0.2.4", "additive", True),
        ("0.2.3", "0.2.3", "additive", False),
    ],
)
def test_versions(old, new, level, fine):
    problem = version_problem(parse_version(old), parse_version(new), level)
    assert (problem is None) == fine


def test_the_version_must_say_it():
    new = changed("vjp_depth", 1, version="1.3.0")
    assert unsaid_by_version(OLD, new, diff_specs(OLD, new)) == (
        "the version goes from 1.2.3 to 1.3.0, but breaking changes need 2.0.0 or later"
    )
    new = changed("vjp_depth", 1, version="2.0.0")
    assert unsaid_by_version(OLD, new, diff_specs(OLD, new)) is None
    new = changed("doc", "A remark.")
    assert unsaid_by_version(OLD, new, diff_specs(OLD, new)) is None


_DIMENSIONS = st.sampled_from(["a", "b", "c", "3", "...", "a+1", "b*2"])
_DTYPES = st.sampled_from(["float32", "int64", "bool", "bfloat16"])


@st.composite
def _arrays(draw: st.DrawFn, plain: bool) -> dict[str, str]:
    tree = {}
    for name in draw(st.lists(st.sampled_from("xyz"), unique=True, min_size=1)):
        dimensions = draw(st.lists(_DIMENSIONS, max_size=3, unique=True))
        tree[name] = f"{draw(_DTYPES)}[{', '.join(dimensions)}]"
    if plain:
        tree["last"] = "int32[a, b]"  # so that arithmetic has its names
    return tree


@st.composite
def _specs(draw: st.DrawFn) -> CallableSpec:
    return load_spec(
        {
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "inputs": draw(_arrays(True)),
            "outputs": draw(_arrays(False)),
            "vjp_depth": draw(st.sampled_from([0, 1])),
        }
    )


@given(_specs())
def test_nothing_changed_from_itself(spec):
    assert diff_specs(spec, load_spec(spec.to_dict())) == ()


@settings(max_examples=300)
@given(_specs(), _specs())
def test_contracts_that_differ_have_changes_and_the_way_back_is_no_safer(old, new):
    forth = {one.level for one in diff_specs(old, new)}
    back = {one.level for one in diff_specs(new, old)}
    assert bool(forth) == (old.digest() != new.digest()) == bool(back)
    if forth and "breaking" not in forth and "additive" in forth:
        assert "breaking" in back
    if forth == {"neutral"}:
        assert back == {"neutral"}


@given(st.tuples(*[st.integers(0, 9)] * 3), st.sampled_from(["major", "minor", "patch"]))
def test_a_greater_step_says_at_least_as_much(version, step):
    after = next_version(version, step)
    levels = [
        lv for lv in ("neutral", "additive", "breaking") if not version_problem(version, after, lv)
    ]
    assert levels == ["neutral", "additive", "breaking"][: len(levels)]
    assert version_problem(version, after, "none") is None


def test_no_jax_and_no_torch(run_python):
    script = (
        "import sys, jaxtorch_bridge.spec.compare.diff_contracts\n"
        "print(sorted({'jax', 'torch', 'numpy', 'typer'} & set(sys.modules)))"
    )
    assert run_python(script).strip() == "[]"


def test_no_field_is_forgotten():
    fields = set(CallableSpec.model_fields) - {"schema_id", "version"}
    assert fields == {
        *("name", "function", "doc", "inputs", "static", "outputs", "constraints", "vjp_depth"),
        *("residuals", "vmap_method", "verify", "concurrency", "sharding", "mutates", "random"),
        "copies",
        *("execution", "groups", "dimensions"),
    }, "teach jaxtorch_bridge.spec.compare.diff_contracts the new field, and the schema"


def _levels(old, new):
    head = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}
    specs = [load_spec({**head, **one}) for one in (old, new)]
    return [(one.level, one.path, one.text) for one in diff_specs(*specs)]


@pytest.mark.parametrize(
    ("old", "new", "level", "text"),
    [
        ("float32", "float32|bfloat16", "additive", "from float32 to float32|bfloat16"),
        ("float32|bfloat16", "float32", "breaking", "calls must pass exactly this dtype"),
        ("float32|bfloat16", "float32|float16", "breaking", "bfloat16 may no longer be passed"),
        ("int32", "float32|int64", "additive", "from int32 to int64|float32"),
        ("like z", "float32|bfloat16", "additive", "from like z to"),
        ("float32|bfloat16", "like z", "breaking", "it must be that of `z`"),
        ("like w", "like z", "breaking", "it must be that of `z`"),
        ("float32", "like only", "neutral", ""),
    ],
)
def test_dtypes_of_inputs(old, new, level, text):
    others = {"z": "float32|bfloat16[]", "w": "float32|bfloat16[]", "only": "float32[]"}
    outputs = {"outputs": {"y": "float32[]"}}
    found = _levels(
        {"inputs": {"x": f"{old}[]", **others}, **outputs},
        {"inputs": {"x": f"{new}[]", **others}, **outputs},
    )[0]
    assert found[0] == level
    assert text in found[2]


@pytest.mark.parametrize(
    ("old", "new", "level"),
    [
        ("float32", "float32|bfloat16", "breaking"),
        ("float32|bfloat16", "float32", "additive"),
        ("float32|bfloat16", "like z", "additive"),
        ("like z", "float32|bfloat16", "breaking"),
        ("like z", "float32", "breaking"),
        ("like z", "like w", "breaking"),
        ("like only", "float32", "neutral"),
        ("float32", "like only", "neutral"),
        ("float16", "like only", "breaking"),
    ],
)
def test_dtypes_of_outputs(old, new, level):
    inputs = {"z": "float32|bfloat16[]", "w": "float32|bfloat16[]", "only": "float32[]"}
    (found,) = _levels(
        {"inputs": inputs, "outputs": {"y": f"{old}[]"}},
        {"inputs": inputs, "outputs": {"y": f"{new}[]"}},
    )
    assert found[0] == level


def test_an_output_that_follows_a_widened_input_is_what_old_calls_got():
    old = {"inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"}}
    new = {"inputs": {"x": "float32|bfloat16[n]"}, "outputs": {"y": "like x[n]"}}
    assert [one[:2] for one in _levels(old, new)] == [("additive", "inputs.x")]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (1, {"type": "int", "default": 1}, []),
        ({"default": 1}, {"type": "int", "default": 1}, ["breaking"]),
        (1, {"default": 1}, ["additive"]),
        (1, 1.0, ["breaking", "additive"]),
        ([0, 1], [0, "a"], ["breaking", "additive"]),
        ({"type": "int"}, {"type": "float"}, ["additive"]),
        ({"type": "float"}, {"type": "int"}, ["breaking"]),
        ({"type": "int|float"}, {"type": "float"}, ["neutral"]),
        ({"type": "int"}, {"type": "int", "default": 1}, ["additive"]),
        ({"type": "int", "default": 1}, {"type": "int"}, ["breaking"]),
        ({"choices": [1, 2]}, {"choices": [2, 3]}, ["breaking", "additive"]),
        ({"choices": [1, 2]}, {"type": None}, ["additive"]),
        ({}, {"choices": [1]}, ["breaking"]),
        ({"choices": [1, 2]}, {"choices": [2, 1]}, ["neutral"]),
        ({"choices": ["a", "b"]}, {"type": "str", "choices": ["a", "b"]}, ["neutral"]),
        ({"choices": [True, False]}, {"type": "bool"}, ["neutral"]),
        ({"type": "bool|null"}, {"choices": [None, True, False]}, ["neutral"]),
        ({"type": "bool"}, {"choices": [True]}, ["breaking"]),
        ({"type": "bool"}, {"type": "bool|int"}, ["additive"]),
        ({"choices": [1, "a"]}, {"type": "int"}, ["breaking", "additive"]),
        ({"type": "int"}, {"choices": [1, "a"]}, ["breaking", "additive"]),
        ({"type": "int", "choices": [1]}, {"type": "float", "choices": [1, 0.5]}, ["additive"]),
        ({}, {"type": "bool"}, ["breaking"]),
        ({"doc": "a"}, {"doc": "b"}, ["neutral"]),
        (None, {"type": "int"}, ["breaking"]),
    ],
)
def test_static_arguments(old, new, found):
    arrays = {"inputs": {}, "outputs": {"y": "int8[]"}}
    before = {} if old is None else {"static": {"a": old}}
    changes = _levels({**arrays, **before}, {**arrays, "static": {"a": new}})
    assert [level for level, _, _ in changes] == found


@pytest.mark.parametrize(
    ("old", "new"), [("[n]", "[m]"), ("[n, m]", "[...]"), ("[n, 2]", "[k, 2]")]
)
def test_arithmetic_over_a_name_that_inputs_have_no_longer(old, new):
    output = {"outputs": {"y": "float32[n//2]"}}
    before, after = {"inputs": {"x": f"int8{old}"}}, {"inputs": {"x": f"int8{new}"}}
    found = [one[:2] for one in _levels({**before, **output}, {**after, **output})]
    assert ("breaking", "outputs.y") in found


def test_arithmetic_over_a_name_that_only_outputs_have():
    old = {"inputs": {"x": "int8[a]"}, "outputs": {"y": "int8[n]", "z": "int8[2*n]"}}
    new = {**old, "inputs": {"x": "int8[b]"}}
    assert [one[:2] for one in _levels(old, new)] == [("neutral", "inputs.x")]


def test_a_size_that_only_an_optional_input_tells():
    mask = {"dtype": "bool", "shape": "[n]", "optional": True}
    output = {"outputs": {"y": "float32[n]"}}
    old = {"inputs": {"x": "float32[n]", "mask": mask}, **output}
    new = {"inputs": {"x": "float32[m]", "mask": mask}, **output}
    assert ("breaking", "outputs.y") in [one[:2] for one in _levels(old, new)]
    # Those who called the old one pass it.
    old = {"inputs": {"x": "float32[m]", "mask": "bool[n]"}, **output}
    assert [one[:2] for one in _levels(old, new)] == [("additive", "inputs.mask")]


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"x": "int8[n]"}, {"x": "int8[n]", "cfg": {}}),
        ({"x": "int8[n]"}, {"x": "int8[n]", "cfg": []}),
        ({"x": "int8[n]", "p": {"a": "int8[n]"}}, {"x": "int8[n]", "p": {"a": "int8[n]", "b": {}}}),
    ],
)
def test_groups_without_arrays_are_arguments(kind, old, new):
    both = {"inputs": {"z": "int8[n]"}, "outputs": {"z": "int8[n]"}}
    for before, after in ((old, new), (new, old)):
        changes = _levels({**both, kind: before}, {**both, kind: after})
        assert "breaking" in [level for level, _, _ in changes]
    assert _levels({**both, kind: new}, {**both, kind: new}) == []


def test_a_dtype_with_gradients_beside_one_without_breaks_nobody():
    output = {"outputs": {"y": "int8[]"}}
    old = {"inputs": {"x": "int32[n]"}, **output}
    new = {"inputs": {"x": "int32|float32[n]"}, **output}
    assert {level for level, _, _ in _levels(old, new)} == {"additive"}


OPTIONAL = {"dtype": "float32", "shape": "[n]", "optional": True}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        # A call that passes `b` alone knew the size of the output.
        ("nn", "nm", [("breaking", "outputs.y"), ("additive", "inputs.b")]),
        ("nn", "mn", [("breaking", "outputs.y"), ("additive", "inputs.b")]),
        ("nm", "nn", [("breaking", "inputs.b")]),
        # What comes from outside must be told by an input that old calls passed, too.
        ("nmn", "nmk", [("breaking", "outputs.y"), ("additive", "inputs.c")]),
        ("nmk", "nmk", []),
    ],
)
def test_a_size_that_several_optional_inputs_tell(old, new, found):
    def contract(names):
        inputs = {
            key: {**OPTIONAL, "shape": f"[{name}]"} for key, name in zip("abc", names, strict=False)
        }
        return {"inputs": inputs, "outputs": {"y": "float32[n]"}}

    assert [one[:2] for one in _levels(contract(old), contract(new))] == found


@pytest.mark.parametrize("output", ["[s]", "[t]", "[s+t]", "[2*t]"])
@pytest.mark.parametrize("one", ["[s]", "[t]"])
def test_sizes_that_a_constraint_makes_equal_are_one_name(output, one):
    two = {
        "inputs": {"x": "int8[s]", "y": "int8[t]"},
        "constraints": ["s == t"],
        "outputs": {"z": f"int8{output}"},
    }
    single = output.replace("s" if one == "[t]" else "t", one[1:-1])
    same = {"inputs": {"x": f"int8{one}", "y": f"int8{one}"}, "outputs": {"z": f"int8{single}"}}
    said = [("neutral", "written differently, means the same")]
    assert [(level, text) for level, _, text in _levels(two, same)] == said
    assert [(level, text) for level, _, text in _levels(same, two)] == said
    free = {key: value for key, value in two.items() if key != "constraints"}
    assert highest(level for level, _, _ in _levels(free, same)) == "breaking"


def test_a_size_that_a_constraint_fixes_is_that_number():
    named = {"inputs": {"x": "int8[s, t]"}, "outputs": {"y": "int8[s]"}}
    fixed = {"inputs": {"x": "int8[3, 4]"}, "outputs": {"y": "int8[3]"}}
    constrained = {**named, "constraints": ["s == 3", "t == s + 1", "4 == t"]}
    for old, new in ((constrained, fixed), (fixed, constrained)):
        assert [level for level, _, _ in _levels(old, new)] == ["neutral"]
    assert highest(level for level, _, _ in _levels(named, fixed)) == "breaking"


def test_constraints_that_are_not_always_checked_make_nothing_equal():
    x = {"dtype": "int8", "shape": "[s]", "optional": True}
    two = {
        "inputs": {"x": x, "y": {**x, "shape": "[t]"}},
        "constraints": ["s == t"],
        "outputs": {"z": "int8[t]"},
    }
    one = {"inputs": {"x": x, "y": x}, "outputs": {"z": "int8[s]"}}
    # A call with `x` alone knew the size of `z`.
    assert ("breaking", "outputs.z") in [found[:2] for found in _levels(one, two)]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"dimensions": {"n": "Rows."}}, "dimensions.n"),
        ({"groups": {"inputs.p": "Two."}}, "groups.inputs.p"),
        ({"constraints": [{"rule": "n>2", "doc": "Some."}]}, "constraints.0"),
        ({"doc": "All of it."}, "doc"),
        ({"static": {"s": {"default": 1, "type": "int", "doc": "One."}}}, "static.s"),
        ({"outputs": {"y": {"dtype": "int8", "shape": "[]", "doc": "Y."}}}, "outputs.y"),
    ],
)
def test_remarks_are_neutral_and_need_no_version(fields, path):
    plain = {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "inputs": {"x": "int8[n]", "p": ["int8[n]"]},
        "static": {"s": {"default": 1, "type": "int"}},
        "outputs": {"y": "int8[]"},
        "constraints": ["n > 2"],
    }
    old, new = load_spec(plain), load_spec({**plain, **fields})
    for before, after in ((old, new), (new, old)):
        changes = diff_specs(before, after)
        assert [(one.level, one.path) for one in changes] == [("neutral", path)]
        assert unsaid_by_version(before, after, changes) is None
    assert old.digest() == new.digest()
    assert old != new


def test_copies_come_and_go_without_a_word_to_callers():
    head = {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "inputs": {"x": "float32[n]", "y": "float32[n]"},
        "outputs": {"z": "float32[n]"},
    }
    one, other = (load_spec({**head, "copies": names}) for names in (["x", "y"], ["y", "x"]))
    assert one == other
    assert one.digest() == other.digest()
    assert diff_specs(one, other) == ()
    changes = diff_specs(one, load_spec({**head, "copies": ["y"]}))
    assert [(one.level, one.path) for one in changes] == [("neutral", "copies")]
    assert changes[0].text == "the function no longer gets a copy of `x`"
    # What was written came back, and does not any more.
    change, _ = diff_specs(
        load_spec({**head, "mutates": ["x"]}), load_spec({**head, "copies": ["x"]})
    )
    assert (change.level, change.path) == ("breaking", "mutates")


def test_the_order_of_new_values_is_part_of_the_contract():
    """Callers unpack them in it, so the two are not equal."""
    inputs = {"x": "float32[n]", "y": "float32[n]"}
    head = {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "inputs": inputs,
        "outputs": {"z": "float32[n]"},
    }
    old, new = (load_spec({**head, "mutates": names}) for names in (["x", "y"], ["y", "x"]))
    assert old != new
    assert old.digest() != new.digest()
    (change,) = diff_specs(old, new)
    assert (change.level, change.path) == ("breaking", "mutates")
    assert "another order: `y`, `x`" in change.text
