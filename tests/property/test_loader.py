"""Anything at all as a contract file: read, or refused with words and a place; never run."""

from __future__ import annotations

import ast
import contextlib
import io
import os

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jaxtorch_bridge.errors import SpecError
from jaxtorch_bridge.spec.compare.diff_contracts import diff_specs
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.read_contract import dump_spec, read_spec
from jaxtorch_bridge.tools.catalog.parts import dimensions_of, inputs_of, outputs_of, static_of
from jaxtorch_bridge.tools.stubs.collect import StubFunction, StubModule
from jaxtorch_bridge.tools.stubs.render import render

# More by hand: JAXTORCH_FUZZ=20000 pytest tests/property/test_loader.py
EXAMPLES = int(os.environ.get("JAXTORCH_FUZZ", "60"))
SETTINGS = settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
VALID = """\
schema: jaxtorch/1
name: mylib.attention
version: 2.1.0
function: mylib.ops:attention
doc: Scaled dot-product attention.
inputs:
  q: float32|bfloat16[batch, heads, seq, dim]
  k: like q[batch, heads, keys, dim]
  mask: {shape: "[batch, keys]", dtype: bool, optional: true, doc: 'What counts.'}
  params: &params {w: {dtype: [float16, float32], shape: [dim, 3, "dim//2"]}, b: ["int8[...]"]}
static:
  causal: false
  how: {type: str|null, choices: [mean, sum, null], default: mean, doc: |
    Two
    lines.}
outputs: {out: "like q[batch, heads, seq, dim*2]"}
dimensions: {batch: How many.}
groups: {inputs.params: The weights.}
constraints: [dim % heads == 0, {rule: seq > 0, doc: 'Not empty.'}]
sharding: {batch: data}
execution: {backend: auto}
""".replace("doc: |\n    Two\n    lines.}", "doc: 'Two lines.'}")
SPLICES = (
    *(
        "!!python/object/apply:os.system ['touch /tmp/no']",
        "!!python/name:os.system",
        "!x",
        "!!set",
    ),
    *(
        "&a",
        "*a",
        "*params",
        "&params",
        "<<: *params",
        "- ",
        "? ",
        ": ",
        "[",
        "]",
        "{",
        "}",
        "|",
        ">",
    ),
    *(
        '"',
        "'",
        "\n",
        "\n  ",
        "\t",
        "\0",
        "\ufeff",
        "\u2028",
        "\ud7ff",
        "\U0001f600",
        "#",
        "%",
        "@",
    ),
    *("---\n", "...\n", "%YAML 9.9\n", "null", "~", "1e999", ".nan", "0x_", "1_000", "2026-01-01"),
    *("like q", "like ", "float32[", "...", "//0", "9" * 70, "a" * 250, "[" * 50, "(" * 20),
    *('"""', "\\", "\\N{", "{x!r}", "__class__", "lambda", "ﬁ", "é", "inputs:", "doc: x\n"),
)


def outcome(raw: bytes) -> object:
    """The contract, or None if it is refused as it should be."""
    try:
        return read_spec(raw, "c.yaml")
    except SpecError as error:
        check(error, raw)
        return None


def check(error: SpecError, raw: bytes) -> None:
    """Whether the error says something of use about every problem."""
    # YAML 1.1 counts these as ends of lines.
    text = raw.decode("utf-8", "replace")
    lines = 1 + sum(text.count(one) for one in "\n\r\x85\u2028\u2029")
    assert error.problems
    for problem in error.problems:
        assert problem.file == "c.yaml"
        assert (problem.line is None) == (problem.column is None)
        assert problem.line is None or 1 <= problem.line <= lines + 1
        assert problem.expected
        assert problem.found
        assert len(str(problem)) < 4000
    assert str(error).isprintable() or "\n" in str(error)


def use(spec) -> None:
    """Whatever is made of a contract that was accepted must be right."""
    written = dump_spec(spec)
    again = read_spec(written.encode(), "c.yaml")
    assert again == spec
    assert again.digest() == spec.digest()
    assert [one for one in diff_specs(spec, again) if one.level != "none"] == []
    function = StubFunction(("f",), spec)
    with contextlib.suppress(SyntaxWarning):
        module = ast.parse(render(StubModule("m", (function,))))
    assert any(isinstance(one, ast.ClassDef) for one in module.body)
    for parts in (inputs_of, outputs_of, static_of, dimensions_of):
        parts(spec)


@SETTINGS
@given(st.data())
def test_valid_text_with_something_spliced_in(data):
    text = VALID
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 12))
        piece = data.draw(st.sampled_from(SPLICES) | st.text(max_size=6))
        text = text[:at] + piece + text[at + cut :]
    spec = outcome(text.encode("utf-8", "surrogatepass"))
    if spec is not None:
        use(spec)


@SETTINGS
@given(st.binary(max_size=200) | st.binary(max_size=60).map(VALID.encode().__add__))
@example(VALID.encode("utf-16"))
@example(VALID.encode("utf-32"))
@example(VALID.replace("Scaled", "Größe").encode("latin-1"))
def test_bytes(raw):
    spec = outcome(raw)
    if spec is not None:
        use(spec)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from([*SPLICES, "float32[n]", "like x[n]", "float32|int8[n]", "n", "x"])
)
FIELDS = st.sampled_from(
    [
        *("schema", "name", "version", "function", "doc", "inputs", "static", "outputs", "mutates"),
        *("groups", "rule", "dimensions", "constraints", "vjp_depth", "residuals", "sharding"),
        *("random", "execution", "copies"),
        *("dtype", "shape", "optional", "differentiable", "like", "type", "default", "choices"),
        *("x", "y", "n", "dtyp", "shap", "inputz", "lambda", "", " "),
    ]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(FIELDS | SCALARS, inner, max_size=4)
    ),
    max_leaves=12,
)


@SETTINGS
@given(st.dictionaries(FIELDS, TREES, max_size=6))
def test_plain_data_of_any_kind(changes):
    head = {"schema": "jaxtorch/1", "name": "f", "version": "1.0.0"}
    data = {**head, "inputs": {"x": "float32[n]"}, "outputs": {"y": "float32[n]"}, **changes}
    spec = None
    with contextlib.suppress(SpecError):
        spec = load_spec(data)
    text = io.StringIO()
    try:
        yaml.safe_dump(data, text, allow_unicode=True)
    except yaml.YAMLError:
        return
    written = outcome(text.getvalue().encode("utf-8", "surrogatepass"))
    if spec is not None:
        use(spec)
    if written is not None:
        use(written)


HOSTILE = st.text(
    st.sampled_from(list("\"'\\\n\r\t{}#`<>&%$")) | st.characters(exclude_categories=["Cs"]),
    max_size=20,
)


@SETTINGS
@given(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
@example('"""', '\\"', "'''\n", "\\")
@example("\x85\u2028\u2029", "\\N{DASH}", "a\\\n", '""""')
def test_remarks_and_texts_of_any_kind(doc, remark, default, key):
    data = {
        "schema": "jaxtorch/1",
        "name": "f",
        "version": "1.0.0",
        "doc": doc,
        "inputs": {
            "x": {"dtype": "float32", "shape": "[n]", "doc": remark},
            "group": {key or "k": {"dtype": "int8", "shape": "[]", "doc": doc}},
        },
        "static": {
            "s": {"default": default, "doc": remark},
            "t": {"type": "str", "choices": [default, default + "!"], "default": default},
        },
        "outputs": {"y": {"dtype": {"like": "x"}, "shape": "[n]", "doc": doc}},
        "groups": {"inputs.group": remark},
        "dimensions": {"n": remark},
        "constraints": [{"rule": "n > 0", "doc": doc}],
    }
    with contextlib.suppress(SpecError):  # the key may hold what cannot be printed
        use(load_spec(data))


@pytest.mark.parametrize("size_bytes", [10 << 20])
def test_large_files_are_refused_at_once(tmp_path, size_bytes):
    file = tmp_path / "large.yaml"
    with open(file, "wb") as stream:
        stream.write(VALID.encode())
        stream.truncate(size_bytes)
    with pytest.raises(SpecError, match=r"large\.yaml:\d+:\d+: expected a file of at most 1048576"):
        load_spec(file)
