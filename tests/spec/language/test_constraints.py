from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtorch_bridge.errors import SpecError, SpecMismatchError
from jaxtorch_bridge.spec.compare.diff_contracts import diff_specs
from jaxtorch_bridge.spec.enforce.inputs import bind_inputs
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.read_contract import dump_spec
from jaxtorch_bridge.spec.language.constraints import parse_constraint
from jaxtorch_bridge.spec.language.shapes import ShapeSyntaxError, parse_shape
from jaxtorch_bridge.spec.model import CallableSpec

TEXT = """\
schema: jaxtorch/1
name: f
version: 1.0.0
inputs:
  x: float32[batch, dim]
  heads: float32[heads]
  more: {shape: "[k]", dtype: float32, optional: true}
outputs:
  y: float32[batch]
constraints:
  - dim % heads == 0
  - k < 4
"""


def spec(*constraints: str, **changes: object) -> CallableSpec:
    data = load_spec(
        {
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "inputs": {"x": "float32[a, b]", "y": "float32[c]"},
            "outputs": {"z": "float32[]"},
        }
    ).to_dict()
    return load_spec({**data, "constraints": list(constraints), **changes})


def test_a_call_that_does_not_meet_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(TEXT)
    contract = load_spec("c.yaml")
    shapes = {("x",): ((2, 6), "float32"), ("heads",): ((3,), "float32")}
    assert bind_inputs(contract, shapes, x64=False).named["dim"] == 6
    shapes["heads",] = ((4,), "float32")
    with pytest.raises(SpecMismatchError) as caught:
        bind_inputs(contract, shapes, x64=False)
    assert str(caught.value) == (
        "f@1.0.0, constraint `dim%heads == 0`: expected it to hold; got 2 == 0. Sizes: batch=2, "
        "dim=6, heads=4. Call it with other sizes, or change the contract. [c.yaml:11:5]"
    )
    assert caught.value.sizes == {"batch": 2, "dim": 6, "heads": 4}
    shapes["heads",] = ((0,), "float32")
    with pytest.raises(SpecMismatchError, match="a division by zero"):
        bind_inputs(contract, shapes, x64=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a % 2", "one of `== != <= >= < >`; got the end at column 6"),
        ("a = 2", "got `=` at column 3"),
        ("a < b < c", "the end of the comparison; got `<` at column 7"),
        ("... == 1", "got `...` at column 1"),
        ("__import__('os') == 1", "got `'` at column 12"),
        ("", "got the end"),
        ("3 == 4", "a comparison that some sizes meet; got `3 == 4`, which never holds"),
        ("a % 0 == 0", "a divisor other than 0; got `0` at column 5"),
        ("a == b // (1 - 1)", "a divisor other than 0; got `(` at column 11"),
    ],
)
def test_what_is_no_constraint(text, message):
    with pytest.raises(ShapeSyntaxError) as caught:
        parse_constraint(text)
    assert message in str(caught.value)


def test_mistakes_have_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(TEXT.replace("k < 4", "kk < 4").replace("heads ==", "=="))
    with pytest.raises(SpecError) as caught:
        load_spec("c.yaml")
    assert [(one.path, one.line) for one in caught.value.problems] == [("constraints.0", 11)]
    (tmp_path / "c.yaml").write_text(TEXT.replace("k < 4", "kk < 4"))
    with pytest.raises(SpecError, match=r"c.yaml:12:5: .*one of the dimensions of the inputs"):
        load_spec("c.yaml")


@pytest.mark.parametrize(
    ("old", "new", "levels"),
    [
        ("a >= 4", "a >= 2", {"additive"}),
        ("a >= 2", "a >= 4", {"breaking"}),
        ("a > 3", "4 <= a", {"neutral"}),
        ("a == 4", "a > 2", {"additive"}),
        ("a == 4", "a != 3", {"additive"}),
        ("a < 4", "a != 4", {"additive"}),
        ("a != 4", "a < 4", {"breaking"}),
        ("a % 8 == 3", "a % 8 >= 2", {"additive"}),
        ("a - b >= 0", "a - b > 0", {"breaking"}),
        ("a <= 8", "a >= 8", {"breaking", "additive"}),
    ],
)
def test_limits_that_move(old, new, levels):
    assert {one.level for one in diff_specs(spec(old), spec(new))} == levels


def test_remainders_are_no_sizes():
    with pytest.raises(ShapeSyntaxError):
        parse_shape("[a % 2]")


def test_written_and_read_again(tmp_path):
    contract = spec("a%b == 0", "(a+b)*c >= 2*(a//c)")
    (tmp_path / "c.yaml").write_text(dump_spec(contract))
    assert load_spec(tmp_path / "c.yaml") == contract
    assert spec("a == b").digest() != spec().digest()


@pytest.mark.parametrize(
    ("old", "new", "level"),
    [
        ([], ["a % b == 0"], "breaking"),
        (["a % b == 0"], [], "additive"),
        (["a < b"], ["a <= b"], "additive"),
        (["a <= b"], ["a < b"], "breaking"),
        (["b > a"], ["a != b"], "additive"),
        (["a == b"], ["b >= a"], "additive"),
        (["a <= b"], ["a >= b"], "breaking"),
        (["a % 4 == 0"], ["a % 2 == 0"], "additive"),
        (["a % 2 == 0"], ["a % 4 == 0"], "breaking"),
        (["a % 4 == 0"], ["b % 2 == 0"], "breaking"),
        (["a % 4 == 1"], ["a % 2 == 1"], "breaking"),
        (["a // 4 == 0"], ["a // 2 == 0"], "breaking"),
        (["a + b < c"], ["c > b + a"], "neutral"),
    ],
)
def test_what_changed(old, new, level):
    assert diff_specs(spec(*old), spec(*new))[0].level == level


def test_a_renamed_dimension_in_a_constraint():
    new = spec("n % b == 0", inputs={"x": "float32[n, b]", "y": "float32[c]"})
    assert {one.level for one in diff_specs(spec("a % b == 0"), new)} == {"neutral"}


@given(*[st.integers(1, 50)] * 2, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]))
def test_comparisons_are_those_of_python(a, b, sign):
    expected = {
        "==": a % b == b,
        "!=": a % b != b,
        "<": a % b < b,
        "<=": a % b <= b,
        ">": a % b > b,
        ">=": a % b >= b,
    }[sign]
    assert parse_constraint(f"a % b {sign} b").holds({"a": a, "b": b}) is expected
