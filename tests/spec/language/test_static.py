"""Static arguments with types, defaults, choices and remarks."""

from __future__ import annotations

import re

import pytest

from jaxtorch_bridge.errors import SpecError, SpecMismatchError
from jaxtorch_bridge.spec.enforce.static_arguments import check_static
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.read_contract import dump_spec, read_spec


def contract(**static):
    head = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}
    arrays = {"inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"}}
    return load_spec({**head, **arrays, "static": static})


def problem_of(**static):
    with pytest.raises(SpecError) as caught:
        contract(**static)
    (problem,) = caught.value.problems
    return f"{problem.path}: expected {problem.expected}; got {problem.found}"


def test_the_long_form():
    spec = contract(causal={"type": "bool", "default": False, "doc": "Whether to mask."})
    causal = spec.static["causal"]
    assert (str(causal.type), causal.default, causal.doc) == ("bool", False, "Whether to mask.")
    assert not causal.required
    assert contract(dim={"type": "int"}).static["dim"].required


@pytest.mark.parametrize(
    ("default", "kind", "accepted", "refused"),
    [
        (False, "bool", [True], [1, None, "yes"]),
        (1, "int", [-3], [1.0, True, None, [1]]),
        (0.5, "float", [1, 2.5], [False, "1", None]),
        ("a", "str", ["b"], [1, None]),
        ([0, 1], "list[int]", [(), [2]], [0, [0.5]]),
        ([0, 0.5], "list[float]", [[1, 2]], [1.5, ["a"]]),
        ([True], "list[bool]", [(False,)], [[1]]),
    ],
)
def test_the_short_form_tells_the_type(default, kind, accepted, refused):
    spec = contract(a=default)
    assert spec == contract(a={"type": kind, "default": default})
    assert spec.to_dict()["static"] == {"a": default}
    for value in accepted:
        check_static(spec, {"a": value})
    for value in refused:
        with pytest.raises(SpecMismatchError, match=rf"a value of type `{re.escape(kind)}`"):
            check_static(spec, {"a": value})
    anything = contract(a={"default": default})
    assert anything != spec
    assert anything.digest() != spec.digest()
    assert load_spec(anything.to_dict()) == anything
    for value in refused:
        check_static(anything, {"a": value})


@pytest.mark.parametrize("default", [None, [], [1, "a"], [1, True], [None]])
def test_some_defaults_tell_no_type(default):
    spec = contract(a=default)
    assert spec == contract(a={"default": default})
    assert spec.to_dict()["static"] == {"a": default}
    check_static(spec, {"a": "anything"})


def test_a_default_is_the_functions_own_only_with_its_kind():
    one = contract(a=1).static["a"]
    assert [one.has_default(value) for value in (1, 1.0, True)] == [True, False, False]
    assert contract(a={"type": "float", "default": 1}).static["a"].has_default(1.0)


def test_remarks_are_no_part_of_the_digest():
    bare = contract(a={"type": "int", "default": 1})
    with_doc = contract(a={"type": "int", "default": 1, "doc": "d"})
    assert bare.digest() == with_doc.digest()
    assert bare != with_doc
    assert bare.digest() != contract(a={"default": 1}).digest()


@pytest.mark.parametrize(
    "static",
    [
        {"type": "int|null", "default": None},
        {"type": ["list[int]", None], "choices": [[0, 1], None], "default": [0, 1]},
        {"choices": ["mean", "sum"]},
        {"doc": "d"},
        {},
    ],
)
def test_contracts_are_written_and_read_back(static):
    spec = contract(a=static)
    assert read_spec(dump_spec(spec).encode(), "f.yaml") == spec


@pytest.mark.parametrize(
    ("static", "match"),
    [
        ({"type": "boool"}, "a.type: expected a type: .* (did you mean `bool`?); got `boool`"),
        ({"type": 3}, "a.type: expected a type: .*; got 3"),
        ({"type": "int|int"}, "a.type: expected each type once; got `int` again"),
        ({"type": []}, "a.type: expected a type: .*; got an empty list"),
        ({"typ": "int"}, "a.typ: expected one of the fields .* (did you mean `type`?)"),
        ({"type": "int", "default": "3"}, "a.default: expected int; got `3`"),
        ({"type": "int", "default": True}, "a.default: expected int; got true"),
        ({"type": "int", "choices": [1, "b"]}, "a.choices.1: expected int; got `b`"),
        ({"choices": []}, "a.choices: expected a list of the values"),
        ({"choices": "ab"}, "a.choices: expected a list of the values"),
        ({"choices": [1, 1.0]}, "a.choices.1: expected each choice once"),
        ({"choices": [{"a": 1}]}, "a.choices.0: expected true, false, a number"),
        ({"choices": ["a"], "default": "b"}, "a.default: expected one of the choices `a`; got `b`"),
        ({"default": {"a": 1}}, "a.default: expected a default: true, false"),
        ([[1]], "a: expected a default: true, false"),
        ({"doc": 3}, "a.doc: expected a string; got 3"),
    ],
)
def test_what_is_refused(static, match):
    start, _, end = match.partition(".*")
    text = problem_of(a=static)
    assert text.startswith(f"static.{start}")
    assert end in text


def test_the_place_of_a_wrong_default():
    text = b"""schema: jaxtorch/1
name: f
version: 1.0.0
inputs: {}
static: {a: {type: int, default: x}, b: {type: bool,
  chioces: [true]}}
outputs: {y: "int8[]"}
"""
    with pytest.raises(SpecError) as caught:
        read_spec(text, "f.yaml")
    places = [str(one).partition(": expected")[0] for one in caught.value.problems]
    assert places == ["f.yaml:5:34: `static.a.default`", "f.yaml:6:3: `static.b.chioces`"]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("bool", [True, False], [1, 0, None, "true"]),
        ("int", [1, -3], [True, 1.0, None, "1"]),
        ("float", [1, 1.5, float("nan")], [True, None, "1"]),
        ("str", ["", "a"], [1, None, b"a"]),
        ("null", [None], [0, False, ""]),
        ("int|null", [1, None], [True, "1"]),
        ("list[int]", [(), (1, 2), [3]], [1, (1.0,), (True,), ((1,),), None]),
        ("list[float]|str", [(1, 2.5), "a"], [None, ("a",)]),
    ],
)
def test_types(kind, good, bad):
    spec = contract(a={"type": kind})
    for value in good:
        check_static(spec, {"a": value})
    for value in bad:
        with pytest.raises(SpecMismatchError, match="argument `a`: expected a value of type"):
            check_static(spec, {"a": value})


def test_messages_say_what_may_be_passed():
    spec = contract(mode={"type": "str", "choices": ["mean", "sum"]}, dim={"type": "int"})
    check_static(spec, {"mode": "mean", "dim": 1})
    with pytest.raises(
        SpecMismatchError,
        match=r"f@1\.0\.0, argument `mode`: expected one of `mean`, `sum` \(did you mean `mean`\?\)"
        r"; got `maen`\. Pass such a value, or change the contract\. \[contract f@1\.0\.0",
    ):
        check_static(spec, {"mode": "maen", "dim": 1})
    with pytest.raises(
        SpecMismatchError, match="argument `dim`: expected a value of type `int`; got nothing"
    ):
        check_static(spec, {"mode": "mean"})


def test_the_default_of_the_function():
    short, typed = (
        contract(a=1).static["a"],
        contract(a={"type": "float", "default": 1}).static["a"],
    )
    assert [short.has_default(one) for one in (1, 1.0, True)] == [True, False, False]
    assert [typed.has_default(one) for one in (1, 1.0, True)] == [True, True, False]
    assert contract(a=[0, 1]).static["a"].has_default((0, 1))
