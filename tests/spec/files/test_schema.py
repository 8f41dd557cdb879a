from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtorch_bridge.dtypes import DTYPES
from jaxtorch_bridge.errors import SpecError
from jaxtorch_bridge.spec.files.json_schema import contract_schema, schema_text
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.files.yaml_document import read_document
from jaxtorch_bridge.spec.model import CallableSpec

ROOT = Path(__file__).parents[3]
SPECS = sorted((ROOT / "specs").glob("*.yaml"))
SCHEMA = contract_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

FULL: dict[str, Any] = {
    "schema": "jaxtorch/1",
    "name": "lib.full",
    "version": "0.10.2",
    "function": "lib.ops:Full.call",
    "doc": "All fields.",
    "inputs": {
        "x": "float32[..., n, 3]",
        "params": {"w": "bfloat16[n, (m+1)*2]", "any name": ["int8[m]", {"b": "bool[]"}]},
        "größe": {"dtype": "int64", "shape": [2, "m", "n // 2", "..."], "optional": True},
        "half": {"dtype": ["float16", "bfloat16"], "shape": "[n]"},
        "either": "float32|bfloat16 | float16[n]",
        "as_half": "like half[n]",
        "y": {"dtype": "complex64", "shape": "[ ]", "differentiable": False, "doc": "d"},
    },
    "static": {
        "a": 1,
        "b": None,
        "c": "s",
        "d": 0.5,
        "e": False,
        "axes": [0, 1],
        "f": {"type": "int | null", "default": None, "doc": "d"},
        "g": {"type": ["list[int]", None], "choices": [[0, 1], None]},
        "h": {},
    },
    "groups": {"inputs.params": "Weights.", "inputs.params.any name": "d", "outputs.out": "d"},
    "dimensions": {"n": "Rows."},
    "outputs": {
        "out": [" float8_e5m2 [n-m] "],
        "more": {"z": "float64[k]"},
        "same": {"dtype": {"like": "params.w"}, "shape": "[n]"},
        "kept": {"dtype": "float32", "shape": ["kept <= 2*n", 4], "fill": 0.5, "overflow": "cut"},
        "ids": "int64[kept<=2*n]",
        "count": {"dtype": "int32", "shape": "[]", "counts": "kept"},
    },
    "constraints": ["n % 2 == 0", {"rule": "(n + m)*2 >= n//3", "doc": "d"}, {"rule": "n > 1"}],
    "vjp_depth": 0,
    "residuals": "recompute",
    "vmap_method": "expand_dims",
    "verify": True,
    "sharding": {"n": "data"},
    "mutates": ["x"],
    "copies": ["y"],
    "random": "key",
    "concurrency": "locked",
    "execution": {"backend": "graph", "outputs": "copy"},
}
INVALID: dict[str, tuple[str, object]] = {
    "other format": ("schema", "jaxtorch/9"),
    "name": ("name", "a-b"),
    "keyword as name": ("name", "lib.class"),
    "unknown dtype in a list": ("inputs", {"x": {"dtype": ["float33"], "shape": "[n]"}}),
    "no dtype in a list": ("inputs", {"x": {"dtype": [], "shape": "[n]"}}),
    "a dtype twice": ("inputs", {"x": {"dtype": ["int8", "int8"], "shape": "[n]"}}),
    "like with more": ("inputs", {"x": {"dtype": {"like": "y", "a": 1}, "shape": "[n]"}}),
    "like nothing": ("inputs", {"x": "like [n]"}),
    "type": ("static", {"a": {"type": "number"}}),
    "type of list": ("static", {"a": {"type": "list[list[int]]"}}),
    "no choices": ("static", {"a": {"choices": []}}),
    "field of static": ("static", {"a": {"kind": "int"}}),
    "remark on a group": ("groups", {"inputs.params": 3}),
    "no path of a group": ("groups", {"params": "d"}),
    "remarks on groups as text": ("groups", "d"),
    "field of a constraint": ("constraints", [{"rule": "n > 1", "docs": "d"}]),
    "remark without a rule": ("constraints", [{"doc": "d"}]),
    "remark on a constraint": ("constraints", [{"rule": "n > 1", "doc": 3}]),
    "rule without comparison": ("constraints", [{"rule": "n % 2", "doc": "d"}]),
    "remark on a dimension": ("dimensions", {"n": 3}),
    "version as number": ("version", 1.0),
    "version of two numbers": ("version", "1.0"),
    "version with zeros": ("version", "1.0.01"),
    "function": ("function", "lib.ops"),
    "doc": ("doc", 3),
    "unknown field": ("size", 3),
    "bound of a sum": ("outputs", {"y": "float32[n+1<=3]"}),
    "fill as text": ("outputs", {"y": {"dtype": "float32", "shape": "[k<=3]", "fill": "0"}}),
    "overflow": ("outputs", {"y": {"dtype": "float32", "shape": "[k<=3]", "overflow": "drop"}}),
    "fill of an input": ("inputs", {"x": {"dtype": "float32", "shape": "[n]", "fill": 0}}),
    "inputs as list": ("inputs", ["float32[]"]),
    "input name": ("inputs.0x", "float32[]"),
    "keyword as input": ("inputs.lambda", "float32[]"),
    "input as number": ("inputs.x", 3),
    "unknown dtype": ("inputs.x", "float33[]"),
    "no shape": ("inputs.x", "float32"),
    "open bracket": ("inputs.x", "float32[n"),
    "half a sum": ("inputs.x", "float32[n+]"),
    "division": ("inputs.x", "float32[n/2]"),
    "divided by zero": ("inputs.x", "float32[n // 0]"),
    "remainder of zero": ("constraints", ["n % 00 == 1"]),
    "remainder as size": ("inputs.x", "float32[n%2]"),
    "dtype of a mapping": ("inputs.y.dtype", "complex32"),
    "shape of a mapping": ("inputs.y.shape", "n"),
    "negative size": ("inputs.y.shape", [-1]),
    "true as size": ("inputs.y.shape", [True]),
    "field of an array": ("inputs.y.opt", True),
    "no dtype": ("inputs.y", {"shape": "[n]"}),
    "gradients of integers": ("inputs.größe.differentiable", True),
    "text as boolean": ("inputs.y.optional", "yes"),
    "optional output": ("outputs.o", {"dtype": "int8", "shape": "[]", "optional": True}),
    "no outputs": ("outputs", {}),
    "static name": ("static.a b", 1),
    "static list": ("static.a", [[1]]),
    "constraint without comparison": ("constraints", ["n % 2"]),
    "constraints as text": ("constraints", "n == 2"),
    "negative depth": ("vjp_depth", -1),
    "depth as text": ("vjp_depth", "2"),
    "residuals": ("residuals", "keep"),
    "vmap_method": ("vmap_method", "loop"),
    "verify": ("verify", 1),
    "sharding": ("sharding.n", ""),
    "mutates": ("mutates", ["x", "x"]),
    "copies": ("copies", "x"),
    "random": ("random", "seed"),
    "concurrency": ("concurrency", "many"),
    "backend": ("execution.backend", "fast"),
    "unknown execution": ("execution.device", "cpu"),
}


def changed(path: str, value: object) -> dict[str, Any]:
    data = copy.deepcopy(FULL)
    *parents, last = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    place[last] = value
    return data


def test_the_schema_itself_is_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_field_is_in_it_with_its_description():
    fields = {info.alias or name for name, info in CallableSpec.model_fields.items()}
    assert set(SCHEMA["properties"]) == fields
    assert all(one["description"] for one in SCHEMA["properties"].values())
    assert SCHEMA["properties"]["vjp_depth"]["description"].startswith("The highest order")


def test_the_committed_file_is_up_to_date():
    text = (ROOT / "specs/contract.schema.json").read_text()
    assert text == schema_text(), "run: jaxtorch schema -o specs/contract.schema.json"


@pytest.mark.parametrize("path", SPECS, ids=[path.stem for path in SPECS])
def test_contracts_of_this_repository_name_it_and_follow_it(path):
    first = path.read_text().splitlines()[0]
    found = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert found is not None
    assert (path.parent / found[1]).is_file()
    VALIDATOR.validate(read_document(path.read_bytes(), path.name).data)


def test_a_contract_with_all_fields():
    load_spec(FULL)
    VALIDATOR.validate(FULL)


@pytest.mark.parametrize("case", INVALID)
def test_what_the_loader_refuses_the_schema_refuses(case):
    data = changed(*INVALID[case])
    with pytest.raises(SpecError):
        load_spec(data)
    assert not VALIDATOR.is_valid(data)


@pytest.mark.parametrize("field", SCHEMA["required"])
def test_required_fields(field):
    data = {name: value for name, value in FULL.items() if name != field}
    with pytest.raises(SpecError):
        load_spec(data)
    assert not VALIDATOR.is_valid(data)


@given(
    st.sampled_from([*DTYPES, "int4", "float"]),
    st.text(alphabet="n m2+-*/.()[], ", max_size=8),
)
def test_whatever_the_loader_takes_the_schema_takes(dtype, shape):
    data = {**FULL, "constraints": [], "sharding": {}, "mutates": [], "copies": []}
    data["inputs"] = {"x": f"{dtype}[{shape}]", "y": "float32[n, m]"}
    data["outputs"] = {"z": "float32[]"}
    try:
        load_spec(data)
    except SpecError:
        return
    VALIDATOR.validate(data)
