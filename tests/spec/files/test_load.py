from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtorch_bridge.dtypes import DTYPES
from jaxtorch_bridge.errors import BridgeError, SpecError
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.read_contract import dump_spec
from jaxtorch_bridge.spec.model import CallableSpec, FrozenDict, TensorSpec

ATTENTION = """\
schema: jaxtorch/1
name: attention
version: 2.1.0                       # semantic version of the contract
function: mylib.ops:attention
doc: Scaled dot-product attention over heads.
inputs:
  q: float32[batch, heads, seq, dim]
  k: float32[batch, heads, keys, dim]
  v: float32[batch, heads, keys, dim]
  mask: {shape: "[batch, keys]", dtype: bool, differentiable: false, optional: true}
static: {causal: false}
outputs:
  out: float32[batch, heads, seq, dim]
vjp_depth: 2                         # highest order a caller may take; absent: unlimited
residuals: tape                      # tape | recompute | auto
vmap_method: torch_vmap              # torch_vmap | sequential | ...
sharding: {batch: data, heads: model}   # dimension name -> mesh axis
mutates: []
copies: []
random: none                         # none | key
execution: {backend: auto, outputs: in_place}   # eager | compile | graph | auto
"""
HEAD = "schema: jaxtorch/1\nname: f\nversion: 1.0.0\n"
SMALL = {
    "schema": "jaxtorch/1",
    "name": "f",
    "version": "1.0.0",
    "inputs": {"x": "float32[n]"},
    "outputs": {"out": "float32[n]"},
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load_text(text: str | bytes) -> CallableSpec:
        raw = text.encode() if isinstance(text, str) else text
        Path("c.yaml").write_bytes(raw)
        return load_spec("c.yaml")

    return load_text


@pytest.fixture
def problems(load):
    def problems_of(text: str | bytes) -> list[tuple[str, int | None, int | None]]:
        with pytest.raises(SpecError) as caught:
            load(text)
        assert "pydantic" not in str(caught.value)
        assert "http" not in str(caught.value)
        return [(one.path, one.line, one.column) for one in caught.value.problems]

    return problems_of


def problem_of(changes: dict[Any, object]) -> str:
    """The text of the one problem that a small contract has with ``changes``."""
    with pytest.raises(SpecError) as caught:
        load_spec({**SMALL, **changes})
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.column) == (None, None, None)
    return str(problem)


def test_the_example_of_the_design_is_read(load):
    spec = load(ATTENTION)
    assert spec.label == "attention@2.1.0"
    assert [path for path, _ in spec.input_leaves()] == [("q",), ("k",), ("v",), ("mask",)]
    assert [str(leaf) for _, leaf in spec.output_leaves()] == ["float32[batch, heads, seq, dim]"]
    mask = spec.inputs["mask"]
    assert isinstance(mask, TensorSpec)
    assert (mask.optional, mask.differentiable) == (True, False)
    assert {name: one.default for name, one in spec.static.items()} == {"causal": False}
    assert dict(spec.sharding) == {"batch": "data", "heads": "model"}
    assert (spec.execution.backend, spec.execution.outputs) == ("auto", "in_place")
    assert (spec.vjp_depth, spec.residuals, spec.random) == (2, "tape", "none")
    assert (spec.mutates, spec.copies) == ((), ())


def test_defaults_stand_where_the_contract_is_silent():
    spec = load_spec(SMALL)
    assert (spec.function, spec.doc, spec.vjp_depth) == (None, None, None)
    assert (spec.residuals, spec.vmap_method, spec.random) == ("auto", "torch_vmap", "none")
    assert (spec.execution.backend, spec.execution.outputs) == ("auto", "auto")
    assert load_spec(spec) is spec


def test_groups_and_lists_become_paths(load):
    spec = load(
        HEAD
        + """\
inputs:
  params:
    conv: {weight: "float32[o, i, 3]", bias: {dtype: float32, shape: [o], optional: true}}
    "norm.scale": float32[]
  xs: ["float32[..., i]", {dtype: int64, shape: [..., "i+1"]}]
outputs: {out: "float32[..., 2*(i//2)]"}
"""
    )
    assert [(".".join(path), str(leaf)) for path, leaf in spec.input_leaves()] == [
        ("params.conv.weight", "float32[o, i, 3]"),
        ("params.conv.bias", "float32[o]"),
        ("params.norm.scale", "float32[]"),
        ("xs.0", "float32[..., i]"),
        ("xs.1", "int64[..., i+1]"),
    ]
    assert spec.where("inputs.params.norm.scale") == "c.yaml:7:19"
    assert spec.where("inputs.params.norm.scale.dtype") == "c.yaml:7:19"
    assert spec.where("inputs.xs.1.dtype") == "c.yaml:8:35"


def test_where_gives_the_nearest_known_place(load):
    spec = load(ATTENTION)
    assert spec.where("inputs.q") == "c.yaml:7:6"
    assert spec.where("inputs.mask.optional") == "c.yaml:10:80"
    assert spec.where("inputs.q.shape") == "c.yaml:7:6"
    assert spec.where("inputs.nothing") == "c.yaml:7:3"
    assert spec.where("nothing.at.all") == "c.yaml:1:1"


def test_where_names_the_contract_without_a_file():
    assert load_spec(SMALL).where("inputs.q") == "contract f@1.0.0, inputs.q"


def test_all_problems_come_at_once_with_their_places(load):
    text = """\
schema: jaxtorch/0
nmae: x
name: attention
version: 1.0
inputs:
  q: float32[batch, he@ds]
  k: floot32[batch]
  p: {w: {shape: [batch, -1], dtype: int4, optonal: yes}}
  m: {shape: "[batch]"}
  x: {shape: [batch, ..., ...], dtype: int32, differentiable: true}
  x: 3
  y: 3
  no: float32[]
static: {lambda: 3, a: [[1]]}
vjp_depth: true
residuals: taep
mutates: q
execution: {backend: jit, foo: 1}
random: null
"""
    with pytest.raises(SpecError, match=r"c\.yaml: 23 problems") as caught:
        load(text)
    lines = [str(problem) for problem in caught.value.problems]
    expected = [
        ("c.yaml:1:1: `outputs`: expected a field `outputs`; got nothing"),
        ("c.yaml:1:9: `schema`: expected `jaxtorch/1`; got `jaxtorch/0`"),
        ("c.yaml:2:1: `nmae`: expected one of the fields `schema`, `name`"),
        ("c.yaml:4:10: `version`: expected three numbers in quotes"),
        ("c.yaml:6:6: `inputs.q`: expected a name, a size"),
        ("c.yaml:7:6: `inputs.k`: expected a dtype that both JAX and torch have"),
        ("c.yaml:8:26: `inputs.p.w.shape.1`: expected a dimension name"),
        ("c.yaml:8:38: `inputs.p.w.dtype`: expected a dtype"),
        ("c.yaml:8:44: `inputs.p.w.optonal`: expected one of the fields"),
        ("c.yaml:9:6: `inputs.m.dtype`: expected a field `dtype`; got nothing"),
        ("c.yaml:10:27: `inputs.x.shape.2`: expected `...` at most once"),
        ("c.yaml:10:63: `inputs.x.differentiable`: expected a float or complex dtype"),
        ("c.yaml:11:3: `inputs.x`: expected each name once; got `x` again, first on line 10"),
        ("c.yaml:12:6: `inputs.y`: expected an array such as"),
        ("c.yaml:13:3: `inputs.no`: expected a string as name (write `no` in quotes)"),
        ("c.yaml:14:10: `static.lambda`: expected an identifier"),
        ("c.yaml:14:24: `static.a`: expected a default"),
        ("c.yaml:15:12: `vjp_depth`: expected an integer; got true (a boolean)"),
        ("c.yaml:16:12: `residuals`: expected one of `tape`, `recompute`, `auto`"),
        ("c.yaml:17:10: `mutates`: expected a list of input names; got `q`"),
        ("c.yaml:18:22: `execution.backend`: expected one of `eager`"),
        ("c.yaml:18:27: `execution.foo`: expected one of the fields `backend`, `outputs`"),
        ("c.yaml:19:9: `random`: expected one of `none`, `key`; got null"),
    ]
    for line, start in zip(lines, expected, strict=False):
        assert line.startswith(start)
    assert len(lines) == len(expected)
    assert "(did you mean `name`?)" in lines[2]
    assert "column 18 of `float32[batch, he@ds]`" in lines[4]
    assert "(did you mean `float32`?)" in lines[5]
    assert "int4` (torch has no 4-bit integers in tensors; use int8)" in lines[7]
    assert "(did you mean `optional`?)" in lines[8]
    assert "(did you mean `tape`?)" in lines[18]
    assert issubclass(SpecError, BridgeError)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 1}, '`version`: expected three numbers in quotes, such as "1.0.0"; got 1 (an'),
        ({"version": 1.0}, "got 1.0 (a number)"),
        ({"version": "1.0"}, "expected a version of three numbers, such as `1.0.0`; got `1.0`"),
        ({"version": "01.0.0"}, "three numbers"),
        ({"version": "1.0.0\n"}, "three numbers"),
        ({"version": None}, "got null"),
        ({"schema": 1}, "expected `jaxtorch/1`; got 1"),
        ({"name": "a-b"}, "expected a name such as"),
        ({"name": 3}, "`name`: expected a string; got 3 (an integer)"),
        ({"function": "mylib.attention"}, "`module:function`"),
        ({"function": "a:b:c"}, "`module:function`"),
        ({"doc": ["x"]}, "`doc`: expected a string; got a list"),
        (
            {"inputs": ["float32[]"]},
            "`inputs`: expected a mapping from names to arrays; got a list",
        ),
        ({"inputs": {"a-b": "int8[]"}}, "`inputs.a-b`: expected a Python identifier"),
        ({"inputs": {1: "int8[]"}}, "`inputs.1`: expected a name"),
        ({"inputs": {"x": {"a": {"": "int8[]"}}}}, "expected a name"),
        ({"inputs": {"x": "float32"}}, "expected a dtype and a shape, such as"),
        ({"inputs": {"x": "[3]"}}, "expected a dtype and a shape, such as"),
        ({"inputs": {"x": "float32[n+1]"}}, "stand alone in the shape of some input; got `n` in"),
        ({"inputs": {"x": {"dtype": "int8"}}}, "`inputs.x.shape`: expected a field `shape`"),
        (
            {"inputs": {"x": {"dtype": 3, "shape": []}}},
            "`inputs.x.dtype`: expected a dtype, a list of dtypes, or `{like: x}`",
        ),
        ({"inputs": {"x": {"dtype": "int8", "shape": "3"}}}, "`inputs.x.shape`: expected `[`"),
        ({"inputs": {"x": {"dtype": "int8", "shape": 3}}}, "expected a shape, such as"),
        ({"inputs": {"x": {"dtype": "int8", "shape": [True]}}}, "`inputs.x.shape.0`"),
        ({"inputs": {"x": {"dtype": "int8", "shape": ["a, b"]}}}, "the end of the dimension"),
        (
            {"inputs": {"x": {"dtype": "int8", "shape": [], "optional": "yes"}}},
            "`inputs.x.optional`: expected true or false; got `yes`",
        ),
        ({"static": [1]}, "`static`: expected a mapping; got a list"),
        (
            {
                "inputs": {"p": {"a.b": "int8[n]", "a": {"b": "int8[n]"}}, "x": "int8[n]"},
                "mutates": ["p.a.b"],
            },
            "`mutates.0`: expected a name that only one input has; got `p.a.b`",
        ),
        ({"static": {"x": 1}}, "`static.x`: expected a name that is not also an input"),
        ({"static": {"a b": 1}}, "`static.a b`: expected an identifier as name"),
        ({"outputs": {}}, "`outputs`: expected at least one output; got none"),
        ({"outputs": {"o": {"g": {}}}}, "at least one output"),
        (
            {"outputs": {"o": {"dtype": "int8", "shape": [], "optional": True}}},
            "`outputs.o.optional`: expected an output that always comes back",
        ),
        ({"vjp_depth": -1}, "`vjp_depth`: expected a number of at least 0; got -1"),
        ({"vjp_depth": 1.0}, "`vjp_depth`: expected an integer; got 1.0"),
        ({"vmap_method": "vmap"}, "expected one of `torch_vmap`, `sequential`"),
        ({"sharding": {"m": "data"}}, "`sharding.m`: expected one of the dimensions `n`"),
        ({"sharding": {"n": ["data"]}}, "`sharding.n`: expected the name of a mesh axis"),
        ({"sharding": {"n": ""}}, "expected the name of a mesh axis"),
        ({"mutates": ["y"]}, "`mutates.0`: expected one of the inputs `x`; got `y`"),
        ({"mutates": ["x", "x"]}, "`mutates.1`: expected each input once"),
        ({"mutates": [3]}, "`mutates.0`: expected the name of an input; got 3"),
        ({"copies": ["y"]}, "`copies.0`: expected one of the inputs `x`; got `y`"),
        ({"copies": ["x", "x"]}, "`copies.1`: expected each input once"),
        (
            {"mutates": ["x"], "copies": ["x"]},
            "`copies.0`: expected an input whose new value does not come back; got `x`, which is "
            "under `mutates`",
        ),
        (
            {"random": "key", "static": {"rng": 1}},
            "`random`: expected no input or static argument `rng`, by which a call passes its key",
        ),
        ({"execution": "eager"}, "`execution`: expected a mapping; got `eager`"),
        ({"execution": {"output": "copy"}}, "(did you mean `outputs`?)"),
        ({3: 4}, "expected a string as field name; got 3"),
        ({"static": {"x2": 10**5000, "lambda": 1}}, "`static.lambda`"),
        ({"vjp_depth": -(10**5000)}, "a huge integer"),
    ],
)
def test_each_field_says_what_it_expects(changes, match):
    assert match in problem_of(changes)


def test_an_expression_may_come_before_the_input_that_binds_it():
    spec = load_spec({**SMALL, "inputs": {"y": "int8[n+1]", "x": "float32[n]"}})
    assert spec.label == "f@1.0.0"


def test_outputs_may_have_names_of_their_own():
    spec = load_spec({**SMALL, "outputs": {"found": "int64[hits, 2]"}})
    assert str(spec.outputs["found"]) == "int64[hits, 2]"


def test_differentiable_follows_the_dtype():
    spec = load_spec({**SMALL, "inputs": {"x": "float32[n]", "i": "int32[n]"}})
    assert [leaf.differentiable for _, leaf in spec.input_leaves()] == [True, False]


def test_exponents_are_numbers_and_quoted_ones_strings(load):
    text = HEAD + "inputs: {}\noutputs: {o: 'int8[]'}\nstatic: {eps: 1e-5, text: '1e-5', b: off}\n"
    spec = load(text)
    defaults = {name: one.default for name, one in spec.static.items()}
    assert defaults == {"eps": 1e-5, "text": "1e-5", "b": False}
    assert load(dump_spec(spec)) == spec


# Hostile and broken files.


@pytest.mark.parametrize(
    ("text", "place", "match"),
    [
        ("", (1, 1), "expected a mapping; got an empty file"),
        ("# only a remark\n", (1, 1), "got an empty file"),
        ("- 1\n", (1, 1), "expected a mapping; got a list"),
        ("text\n", (1, 1), "expected a mapping; got `text`"),
        ("a: [1\nb: 2\n", (2, 2), "expected valid YAML"),
        ("a:\n\t- 1\n", (2, 1), r"cannot start any token"),
        ("a: *nothing\n", (1, 4), "undefined alias"),
        ("a: 1\n---\nb: 1\n", (2, 1), "another document"),
        ("inputs: {q: float32[a, b]}\n", (1, 20), r"inside \{ \} and \[ \] put shapes in quotes"),
        (b"a: 1\nb: \xff", (2, 4), "expected text in UTF-8; got the byte 0xff"),
        ("a: 1".encode("utf-16"), (1, 1), r"\(is it UTF-16\? save it as UTF-8\)"),
        ("a: 1\nb: \0\n", (2, 4), r"expected printable text; got the character U\+0000"),
        ('a: !!python/object/apply:os.system ["x"]\n', (1, 4), "without tags; got the tag"),
        ("a: !!python/name:os.system ''\n", (1, 4), "!!python/name:os.system"),
        ("a: !own x\n", (1, 4), "the tag `!own`"),
        ("a: !!set {x}\n", (1, 4), "the tag `!!set`"),
        ("a: !!binary x\n", (1, 4), "the tag `!!binary`"),
        ("a: &a {x: 1}\nb: {<<: *a}\n", (2, 5), "the merge key `<<`"),
        ("a: &a [*a]\n", (1, 4), "`a.0`: expected a tree; got an alias to what encloses it"),
        ("&a {b: *a}\n", (1, 1), "an alias to what encloses it"),
        ("[" * 100_000, (1, 41), "at most 40 nested levels"),
        ("- " * 100_000, (1, 81), "at most 40 nested levels"),
        ("{a: " * 100_000, (1, 158), "at most 40 nested levels"),
        ("a: [" + "1," * 30_000 + "]", (1, 39_999), "at most 20000 values"),
        ("a: " + "9" * 5000, (1, 4), "expected a !!int"),
        ("a: 1" + ":1" * 30_000, (1, 4), "expected a !!int"),
        ("a: !!int ''\n", (1, 4), "expected a !!int; got ``"),
        ("a: !!bool maybe\n", (1, 4), "expected a !!bool"),
        ("? " + "x" * 300 + "\n: 1\n", (1, 3), "at most 200 characters"),
        ("x" * (1 << 20) + "x", (1, 1 + (1 << 20)), "at most 1048576 bytes"),
        ("# 1\n" * (1 << 18) + "é", (1 + (1 << 18), 1), "at most 1048576 bytes"),
        ("é" * (1 << 20), (1, 1 + (1 << 19)), "at most 1048576 bytes"),
        ("\ufeff" + "x" * (1 << 20), (1, (1 << 20) - 2), "at most 1048576 bytes"),
        (b"\xef\xbb\xbfa: 1\nb: \xff", (2, 4), "got the byte 0xff$"),
        (b"a: 1\r\nb: \xc3\xa9\xff", (2, 5), "got the byte 0xff$"),
        (b"a: 1\rb: \x80", (2, 4), "got the byte 0x80"),
    ],
)
def test_files_that_cannot_be_read_are_refused_with_their_place(load, text, place, match):
    with pytest.raises(SpecError, match=match) as caught:
        load(text)
    (problem,) = caught.value.problems
    assert (problem.file, (problem.line, problem.column)) == ("c.yaml", place)


def test_alias_bombs_are_not_written_out(load):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    with pytest.raises(SpecError, match="at most 20000 values, aliases written out") as caught:
        load("\n".join(lines))
    # Where the aliases stand, not the one line that they all lead to.
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (5, "e.1.5.2.3")


def test_plain_aliases_are_fine(load):
    spec = load(HEAD + "inputs: {x: &x 'int8[n]', y: *x}\noutputs: {o: *x}\n")
    assert spec.inputs["x"] == spec.inputs["y"]


def test_odd_names_and_dates_are_reported_not_raised(problems):
    text = HEAD.replace("1.0.0", "2020-13-45") + "? [a]\n: 1\n2020-01-01: x\noutputs: {}\n"
    found = problems(text)
    assert [one for one in found if one[1] != 1] == [
        ("version", 3, 10),
        ("", 4, 3),
        ("2020-01-01", 6, 1),
        ("2020-01-01", 6, 1),
        ("outputs", 7, 10),
    ]


def test_lone_surrogates_are_reported(problems):
    found = problems('name: "\\ud800"\ninputs: {"\\udc00": "int8[]"}\n')
    assert ("name", 1, 7) in found
    # pydantic replaces them in its paths, so the place is that of the enclosing mapping.
    assert ("inputs", 2, 9) in [(path.partition(".")[0], *place) for path, *place in found]


def test_a_byte_order_mark_is_skipped(load):
    assert load(b"\xef\xbb\xbf" + ATTENTION.encode()).name == "attention"


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("missing.yaml", "missing.yaml: expected a readable file; got No such file"),
        (".", "got Is a directory"),
        ("a\0b", "null"),
        ("schema: jaxtorch/1\n", "this is YAML text; pass a path or a dict"),
        (42, "expected the path of a YAML file, a dict or a CallableSpec; got 42"),
        (None, "got null"),
    ],
)
def test_sources_that_are_no_files_are_refused(source, match, load):
    with pytest.raises(SpecError, match=match):
        load_spec(source)


def test_paths_may_be_objects(load, tmp_path):
    load(ATTENTION)
    assert load_spec(tmp_path / "c.yaml") == load_spec(os.fsencode("c.yaml"))


def test_cycles_in_a_dict_end():
    group: dict[str, object] = {}
    group["g"] = group
    assert "at most 32 levels" in problem_of({"inputs": {"x": group}})


def test_many_wrong_names_are_cut_short(load):
    names = ", ".join(f"zz{i}" for i in range(5000))
    with pytest.raises(SpecError) as caught:
        load(HEAD + f"inputs: {{x: 'int8[]'}}\noutputs: {{o: 'int8[]'}}\nmutates: [{names}]\n")
    assert len(caught.value.problems) == 200


# Equality, hash, digest, round trip.


def test_positions_do_not_count_in_equality(load):
    first = load(ATTENTION)
    second = load("# moved\n" + ATTENTION)
    assert first == second == load_spec(first.to_dict())
    assert len({first, second, load_spec(first.to_dict())}) == 1
    assert first.where("inputs.q") != second.where("inputs.q")


def test_every_content_counts_in_equality():
    spec = load_spec(SMALL)
    static = [load_spec({**SMALL, "static": {"a": one}}) for one in (1, 1.0, True, "1", None)]
    assert len({spec, *static}) == 6
    assert load_spec({**SMALL, "doc": "x"}) != spec
    assert spec != "f@1.0.0"


def test_the_digest_leaves_out_what_does_not_matter():
    spec = load_spec({**SMALL, "static": {"a": 1, "b": 2}})
    same = {"static": {"b": 2, "a": 1}, "doc": "words", "residuals": "auto", "execution": {}}
    remarked = {"x": {"dtype": "float32", "shape": ["n"], "doc": "words", "differentiable": True}}
    assert load_spec({**same, **SMALL, "inputs": remarked}).digest() == spec.digest()
    assert len(spec.digest()) == 64


def test_the_order_of_inputs_counts_in_the_digest():
    one = load_spec({**SMALL, "inputs": {"x": "float32[n]", "y": "float32[n]"}})
    two = load_spec({**SMALL, "inputs": {"y": "float32[n]", "x": "float32[n]"}})
    assert one.digest() != two.digest()
    assert one != two


def test_digests_stay_the_same_between_releases():
    # Compiled programs are cached under this; a change here must be meant.
    assert (
        load_spec(SMALL).digest()
        == "ee9687c283985f782baef4caa388591474633e4138a83470ba23ab2ca696e6a1"
    )


def test_copies_are_equal_and_updates_are_seen():
    spec = load_spec(SMALL)
    assert pickle.loads(pickle.dumps(spec)) == copy.deepcopy(spec) == spec
    assert hash(pickle.loads(pickle.dumps(spec))) == hash(spec)
    assert spec.model_copy(update={"version": "2.0.0"}) != spec


def test_a_contract_cannot_change():
    spec = load_spec(SMALL)
    with pytest.raises(ValueError, match="frozen"):
        spec.name = "g"
    with pytest.raises(TypeError, match="item assignment"):
        spec.inputs["x"] = None
    assert repr(FrozenDict({"a": 1})) == "FrozenDict({'a': 1})"
    assert hash(FrozenDict({"a": 1, "b": 2})) == hash(FrozenDict({"b": 2, "a": 1}))


_NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,6}x", fullmatch=True)  # never a keyword or a field
_KEYS = _NAMES | st.sampled_from(["conv.weight", "no", "1", "null", "1e5", "0", "a b", "- x", "é"])
_DIMENSIONS = st.sampled_from(["n", "m", "batch", 0, 3, "n+1", "2*(m-1)"])
_DOCS = st.none() | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs")))


@st.composite
def _tensors(draw: st.DrawFn, optional: bool) -> dict[str, object]:
    shape = draw(st.lists(_DIMENSIONS, max_size=3))
    if draw(st.booleans()):
        shape.insert(draw(st.integers(0, len(shape))), "...")
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    tensor: dict[str, object] = {"dtype": dtype, "shape": shape}
    if draw(st.booleans()):
        tensor["differentiable"] = DTYPES[dtype].differentiable and draw(st.booleans())
    return {**tensor, "doc": draw(_DOCS), "optional": optional and draw(st.booleans())}


def _trees(optional: bool) -> st.SearchStrategy[object]:
    return st.recursive(
        _tensors(optional),
        lambda inner: (
            st.dictionaries(_KEYS, inner, min_size=1, max_size=3)
            | st.lists(inner, min_size=1, max_size=3)
        ),
        max_leaves=4,
    )


@st.composite
def _contracts(draw: st.DrawFn) -> dict[str, object]:
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), _DOCS, st.sampled_from(["1e5", "~"])
    )
    inputs = draw(st.dictionaries(_NAMES.map("i_".__add__), _trees(True), max_size=3))
    binder = {"binder": "float32[n, m, batch]"}
    written = draw(st.lists(st.sampled_from(["binder", *inputs]), unique=True))
    return {
        "schema": "jaxtorch/1",
        "name": "pkg.f",
        "doc": draw(_DOCS),
        "version": draw(st.sampled_from(["0.0.0", "1.2.3", "10.20.30"])),
        "function": draw(st.sampled_from([None, "pkg.ops:Layer.forward"])),
        "inputs": {**inputs, **binder},
        "static": draw(st.dictionaries(_NAMES.map("s_".__add__), scalars, max_size=3)),
        "outputs": draw(st.dictionaries(_NAMES, _trees(False), min_size=1, max_size=2)),
        "vjp_depth": draw(st.none() | st.integers(0, 5)),
        "residuals": draw(st.sampled_from(["tape", "recompute", "auto"])),
        "vmap_method": draw(st.sampled_from(["torch_vmap", "sequential", "broadcast_all"])),
        "sharding": draw(st.dictionaries(st.sampled_from(["n", "m", "batch"]), _NAMES)),
        "mutates": written[::2],
        "copies": written[1::2],
        "random": draw(st.sampled_from(["none", "key"])),
        "execution": {
            "backend": draw(st.sampled_from(["eager", "compile", "graph", "xla", "auto"]))
        },
    }


@given(data=_contracts())
def test_contracts_survive_the_way_to_text_and_back(data, tmp_path_factory):
    spec = load_spec(data)
    again = load_spec(spec.to_dict())
    assert again == spec
    assert hash(again) == hash(spec)
    file = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    file.write_text(dump_spec(spec), encoding="utf-8")
    written = load_spec(file)
    assert written == spec
    assert written.digest() == spec.digest()
    assert written.to_dict()["inputs"] == spec.to_dict()["inputs"]


def test_reading_contracts_imports_neither_jax_nor_torch(tmp_path):
    file = tmp_path / "attention.yaml"
    file.write_text(ATTENTION, encoding="utf-8")
    program = (
        "import sys\n"
        "from jaxtorch_bridge.spec import enforce\n"
        "from jaxtorch_bridge.spec.files import load\n"
        f"load.load_spec({str(file)!r}).digest()\n"
        "heavy = {'jax', 'jaxlib', 'torch', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
