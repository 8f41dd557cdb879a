"""Programs of strangers: whatever they say of a call, the right op comes, or an error in words."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from comparing import assert_equal
from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.calling.exporting import resolve

FAILURES = (jax.errors.JaxRuntimeError, ValueError)
x = jnp.arange(3.0) + 1


@jax_callable
def victim(tree, scale=2):
    return tree["x"] * scale


def gradient_op():
    """The backward of ``victim``: (key, recipe, steps)."""
    linearized = victim._planned(({"x": x},), {}).op.family.linearize(
        victim._planned(({"x": x},), {}).op, (0,)
    )
    return linearized.linear_call(True, (0,), (0,)).op


OP = victim._planned(({"x": x},), {}).op
GRADIENT = gradient_op()
RECIPE = json.loads(OP.recipe)


def asked(recipe, steps="[]", key=OP.key):
    """What a program with this recipe gets: the text of an error, or the handle of an op."""
    text = recipe if isinstance(recipe, str) else json.dumps(recipe)
    return resolve(key, text, steps, False)


def refused(recipe, steps="[]", key=OP.key):
    found = asked(recipe, steps, key)
    assert isinstance(found, str), found
    assert found.startswith("ExportError: this program was exported and calls the torch function")
    found.encode()  # what XLA takes
    assert len(found) < 3000
    return found


def test_the_recipe_itself_is_followed():
    assert asked(RECIPE) is OP.handle
    assert asked(RECIPE, json.dumps(GRADIENT.steps), GRADIENT.key) is GRADIENT.handle


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "3", '"text"', "{}", "\x00", "[" * 100_000, '{"a":' * 100_000),
        *('{"version": 2}', '{"version": true}', '{"version": "1"}', '{"version": 1}'),
        *('{"version": 1, "none": ["\\ud800"]}', '{"version": 1, "none": null}'),
        *("9" * 5_000, '{"version": ' + "9" * 5_000 + "}", " " * 1_000_001, "NaN"),
    ],
    ids=lambda text: f"{text[:16]!r} {len(text)}",
)
def test_texts_that_are_no_recipe(text):
    refused(text)
    if text != "[]":  # of no steps
        refused(RECIPE, text)


WRONG = (None, True, -1, 0, 7, 2**70, 1.5, "text", "\ud800", [], {}, [[]], [None], {"tuple": 3})


def places(data, path=()):
    yield path
    if isinstance(data, (dict, list)):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*path, key))


def changed(data, path, value):
    data = copy.deepcopy(data)
    if not path:
        return value
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return data


@pytest.mark.parametrize("path", list(places(RECIPE)), ids=str)
def test_anything_else_in_any_place(path):
    for value in WRONG:
        found = asked(changed(RECIPE, path, value))
        # What does not count may be anything; nothing leads to another op. With 64-bit dtypes the
        # function has one of its own that does the same.
        assert isinstance(found, str) or found is OP.handle or (path, value) == (("x64",), True)
    if path and isinstance(path[-1], str):
        recipe = copy.deepcopy(RECIPE)
        holder = recipe
        for key in path[:-1]:
            holder = holder[key]
        del holder[path[-1]]
        found = asked(recipe)
        assert isinstance(found, str) or found is OP.handle


@pytest.mark.parametrize("path", list(places(json.loads(json.dumps(GRADIENT.steps)))), ids=str)
def test_anything_else_among_the_steps(path):
    steps = json.loads(json.dumps(GRADIENT.steps))
    for value in (*WRONG, "linearize", "batched", "forward", [7], [0, 0], ["forward"]):
        found = asked(RECIPE, json.dumps(changed(steps, path, value)), GRADIENT.key)
        assert isinstance(found, str) or found is GRADIENT.handle


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([["forward"]], "step of a derivative"),
        ([["linearize", [0]]], "leads to a derivative"),
        ([["linearize", [1]], ["forward"]], "by number 1 of 1"),
        ([["linearize", [0]], ["batched", 2, [0], False]], "step of an op"),
        ([["linearize", [0]], ["linear_call", True, [0], [1]]], "does not depend"),
        ([["batched", 2, [0, 0], False]], "2 axes for 1 inputs"),
        ([["batched", 2, [0], False]], "found in another way"),
        ([["transposed", [0], [3]], ["forward"]], "by number 3 of 1"),
        ([["explode"]], "no step `explode`"),
        ([["linearize", [True]]], "to count something"),
        ([["pushforward", [0]]] * 101, "at most 100 steps"),
        ([["linearize", [0]]] * 50, "step of an op"),
    ],
    ids=str,
)
def test_steps_that_lead_nowhere(steps, words):
    assert words in refused(RECIPE, json.dumps(steps))


def with_structure(structure):
    return changed(RECIPE, ("structure",), structure)


def nested(count, leaf=0):
    for _ in range(count):
        leaf = {"tuple": [leaf]}
    return leaf


@pytest.mark.parametrize(
    ("structure", "words"),
    [
        ({"class": "os:system", "children": [0]}, "names a class `os:system`"),
        ({"class": "os:path.join", "children": [0]}, "names a class `os:path.join`"),
        ({"class": "nowhere:Thing", "children": [0]}, "names a class `nowhere:Thing`"),
        ({"class": "builtins:object", "children": [0]}, "no container is written so"),
        ({"class": "subprocess:Popen", "children": [0], "content": ["true"]}, "no value"),
        ({"class": "subprocess:Popen", "children": [0], "of torch": 1}, "torch's registry"),
        ({"class": "time:struct_time", "children": [0]}, "no container is written so"),
        ({"class": "\ud800:\ud800", "children": [0]}, "names a class"),
        ({"class": "x" * 10_000, "children": [0]}, "names a class"),
        ({"class": 3, "children": [0]}, "names a class"),
        ({"class": "os:stat_result", "children": [0]}, "no container is written so"),
        (nested(60), "nested in more than 50"),
        ({"tuple": [0] * 5}, "5 leaves, and not 1"),
        ({"dict": [["x", 0], ["x", 0]]}, "a key stands twice"),
        ({"dict": [[{"list": []}, 0]]}, "no container is written so"),
        ([0], "no container is written so"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_structures(structure, words):
    if "subprocess" in str(structure):
        import subprocess  # noqa: F401
    assert words in refused(with_structure(structure)) or words == "no value"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"enum": ["os:system", "x"]}, "names a class `os:system`"),
        ({"enum": ["enum:Enum", "x"]}, "no value of the kind `enum`"),
        ({"enum": ["builtins:int", "x"]}, "no value of the kind `enum`"),
        ({"dtype": "load"}, "no value of the kind `dtype`"),
        ({"dtype": ["float32"]}, "no value of the kind `dtype`"),
        ({"device": "nowhere"}, "no value of the kind `device`"),
        ({"float": "x"}, "no value of the kind `float`"),
        ({"float": "0x1p99999"}, "no value of the kind `float`"),
        ({"bytes": "zz"}, "no value of the kind `bytes`"),
        ({"size": ["x"]}, "no value of the kind `size`"),
        ({"frozenset": [{"list": []}]}, "no value of the kind `frozenset`"),
        ({"call": "os:system"}, "no value of the kind `call`"),
        ({"list": []}, "unhashable"),
        ({"dict": []}, "unhashable"),
        (1.5, "expected a value as its kind"),
        (7, "come in another form"),
        ("2", "cannot be found without running it"),
    ],
    ids=str,
)
def test_static_values(value, words):
    recipe = with_structure({"tuple": [{"tuple": [{"dict": [["x", 0]]}, 0]}, {"dict": []}]})
    recipe["leaves"].append({"static": value})
    assert words in refused(recipe)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (["float32", [4]], "sees other arguments"),
        (["float16", [3]], "sees other arguments"),
        (["float33", [3]], "no arrays of `float33`"),
        (["float32", [-1]], "is no size"),
        (["float32", [2**63]], "is no size"),
        (["float32", [True]], "is no size"),
        (["float32", [2**62, 2**62]], "ExportError"),
        (["float32", ["b"]], "sees other arguments"),
        (["float32", ["b, c"]], "sees other arguments"),
        (["float32", ["__import__('os')"]], "not written as this library does"),
        (["float32", ["(" * 3_000 + "b" + ")" * 3_000]], "not written as this library does"),
        (["float32", ["..."]], "not written as this library does"),
    ],
    ids=lambda part: str(part)[:40],
)
def test_arrays(array, words):
    recipe = copy.deepcopy(RECIPE)
    recipe["leaves"][0] = {"array": array}
    assert words in refused(recipe)


def test_constraints_are_no_more_than_that():
    recipe = copy.deepcopy(RECIPE)
    recipe["leaves"][0] = {"array": ["float32", ["b"]]}
    for constraints in (["b"], ["b >= "], [3], "b >= 1", ["b >= 3", "b <= 2"], [["b"]], None):
        refused(changed(recipe, ("constraints",), constraints))


def test_nothing_is_imported(tmp_path, monkeypatch):
    (tmp_path / "sinister.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    spec = importlib.util.find_spec("sinister")
    # A module that is loaded when somebody looks into it.
    spec.loader = importlib.util.LazyLoader(spec.loader)
    lazy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lazy)
    for module in ({}, {"sinister": lazy}):
        for name, loaded in module.items():
            monkeypatch.setitem(sys.modules, name, loaded)
        for name in ("sinister:Thing", "sinister:Thing.Part", "sinister.part:Thing"):
            words = refused(with_structure({"class": name, "children": [0]}))
            assert "no module that is loaded here has" in words
    assert type(lazy).__name__ == "_LazyModule"  # still not loaded


def test_the_handler_says_the_words_and_goes_on():
    def call(recipe, steps, key=OP.key):
        target = "jaxtorch_bridge.call:victim@0"
        made = jax.ffi.ffi_call(target, jax.ShapeDtypeStruct((3,), "float32"))
        attributes = {"op": key, "exported": np.int64(1), "recipe": recipe, "steps": steps}
        return jax.jit(lambda x: made(x, **attributes))(x)

    assert_equal(call(OP.recipe, "[]"), 2 * x)
    other = OP.key[:-1] + ("0" if OP.key[-1] != "0" else "1")
    for recipe, steps in (("{", "[]"), (OP.recipe, "["), ("\ud7ff" * 10, "[]"), ("\x00", "\x00")):
        with pytest.raises(FAILURES, match=r"ExportError: .*`victim@0`.*cannot be used"):
            call(recipe, steps, other)
    with pytest.raises(FAILURES, match=r"ExportError: .*its key is another one"):
        call(OP.recipe, "[]", other)
    assert_equal(call(OP.recipe, "[]"), 2 * x)
