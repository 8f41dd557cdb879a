"""The JSON Schema of contract files, for editors.

It says what a file may look like. What needs the whole contract (an expression over a dimension
that no input has, say) only `load_spec` finds.
"""

from __future__ import annotations

import inspect
import json
import keyword
import re
from typing import Any, get_args

from pydantic import BaseModel

from ... import dtypes
from ...choices import ConcurrencyMode, VmapMethod
from ..execution import Execution
from ..language.static_arguments import StaticSpec
from ..model import CallableSpec
from ..tensor import OUTPUTS_ALONE, TensorSpec

_NAME = "[A-Za-z_][A-Za-z0-9_]*"
# Whether parentheses match is more than a regular expression can tell.
_ATOM = rf"(?:\(\s*)*(?:{_NAME}|[0-9]{{1,18}})(?:\s*\))*"
# As the parser refuses it: a divisor of 0, with however many digits.
_NOT_BY_ZERO = r"(?!\s*0+(?![0-9]))"
_TERM = rf"{_ATOM}(?:\s*(?:\+|-|\*|//{_NOT_BY_ZERO})\s*{_ATOM})*"
# A bound that only dimensions of outputs have.
_DIMENSION = rf"(?:\.\.\.|(?:{_NAME}\s*<=\s*)?{_TERM})"
_SHAPE = rf"\[\s*(?:{_DIMENSION}(?:\s*,\s*{_DIMENSION})*\s*)?\]\s*"
# As `_TERM`, with the remainder that only constraints have.
_SIDE = rf"{_ATOM}(?:\s*(?:\+|-|\*|(?://|%){_NOT_BY_ZERO})\s*{_ATOM})*"
_KNOWN = "|".join(dtypes.DTYPES)
_UNION = rf"(?:{_KNOWN})(?:\s*\|\s*(?:{_KNOWN}))*"
_LIKE = r"like\s[^\[]*[^\[\s]"
_KIND = "(?:bool|int|float|str)"
# Letters of any script, as in Python; no ASCII punctuation but the underscore.
_LETTER = r"[^\s!-/:-@\[-^`{-~]"
# No keyword, unless more letters follow it.
_IDENTIFIER = rf"(?![0-9])(?!(?:{'|'.join(keyword.kwlist)})(?![^\s!-/:-@\[-^`{{-~])){_LETTER}+"
_DOTTED = rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})*"


def schema_text() -> str:
    """The schema as JSON text, the same in every process."""
    return json.dumps(contract_schema(), indent=2) + "\n"


def contract_schema() -> dict[str, Any]:
    """The schema of a contract file, in JSON Schema's draft 2020-12."""
    named = {"propertyNames": {"pattern": f"^{_IDENTIFIER}$"}}
    properties: dict[str, Any] = {
        "schema": {"const": "jaxtorch/1"},
        "name": {"type": "string", "pattern": f"^{_DOTTED}$"},
        "version": {
            "type": "string",
            "pattern": r"^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){2}$",
        },
        "function": {"type": ["string", "null"], "pattern": f"^{_DOTTED}:{_DOTTED}$"},
        "doc": {"type": ["string", "null"]},
        "inputs": {"type": "object", **named, "additionalProperties": _ref("input")},
        "static": {"type": "object", **named, "additionalProperties": _ref("static")},
        "outputs": {
            "type": "object",
            **named,
            "minProperties": 1,
            "additionalProperties": _ref("output"),
        },
        "groups": {
            "type": "object",
            "propertyNames": {"pattern": r"^(?:inputs|outputs)\..+$"},
            "additionalProperties": {"type": "string"},
            "examples": [{"inputs.params": "The weights."}],
        },
        "dimensions": {
            "type": "object",
            "propertyNames": {"pattern": f"^{_NAME}$"},
            "additionalProperties": {"type": "string"},
        },
        "constraints": {"type": "array", "items": _ref("constraint")},
        "vjp_depth": {"type": ["integer", "null"], "minimum": 0},
        "residuals": _choice(CallableSpec, "residuals"),
        "vmap_method": {"enum": list(get_args(VmapMethod)), "default": "torch_vmap"},
        "verify": {"type": "boolean", "default": False},
        "sharding": {
            "type": "object",
            **named,
            "additionalProperties": {"type": "string", "minLength": 1},
        },
        "mutates": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
        "copies": {"type": "array", "uniqueItems": True, "items": {"type": "string"}},
        "random": _choice(CallableSpec, "random"),
        "concurrency": {"enum": [*get_args(ConcurrencyMode), None]},
        "execution": {
            "type": "object",
            "additionalProperties": False,
            "properties": _described(
                Execution,
                {
                    "backend": _choice(Execution, "backend"),
                    "outputs": _choice(Execution, "outputs"),
                    "islands": {"type": "boolean", "default": True},
                    "cuda_graph": {"type": "boolean", "default": False},
                },
            ),
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "jaxtorch contract",
        "description": _first_line(CallableSpec),
        "type": "object",
        "required": ["schema", "name", "version", "inputs", "outputs"],
        "additionalProperties": False,
        "properties": _described(CallableSpec, properties, {"schema_id": "schema"}),
        "$defs": {
            "dtype": _dtype(),
            "value": _value(),
            "static": _static(),
            "rule": _rule(),
            "constraint": _constraint(),
            "shape": _shape(),
            "shorthand": _shorthand(),
            "input": _node(
                "input",
                optional={"type": "boolean", "default": False},
                **{name: {"const": None} for name in OUTPUTS_ALONE},
            ),
            "output": _node(
                "output",
                optional={"const": False},
                fill={"type": ["boolean", "number", "null"]},
                overflow={"enum": ["error", "cut", None]},
                counts={"type": ["string", "null"], "pattern": f"^{_NAME}$"},
            ),
        },
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _choice(model: type[BaseModel], name: str) -> dict[str, Any]:
    info = model.model_fields[name]
    return {"enum": list(get_args(info.annotation)), "default": info.default}


def _rule() -> dict[str, Any]:
    return {
        "description": "A comparison of dimensions that every call must meet.",
        "type": "string",
        "pattern": rf"^\s*{_SIDE}\s*(?:==|!=|<=|>=|<|>)\s*{_SIDE}\s*$",
        "examples": ["dim % heads == 0"],
    }


def _constraint() -> dict[str, Any]:
    remark = {"description": "A remark for readers.", "type": ["string", "null"]}
    return {
        "description": "A comparison of dimensions, or a mapping with rule and doc.",
        "type": ["string", "object"],
        # By the form, not `anyOf`: complaints are then about the one that was meant.
        "if": {"type": "object"},
        "then": {
            "required": ["rule"],
            "additionalProperties": False,
            "properties": {"rule": _ref("rule"), "doc": remark},
        },
        "else": _ref("rule"),
    }


def _shape() -> dict[str, Any]:
    dimension = {
        "anyOf": [
            # As in text: 18 digits at most.
            {"type": "integer", "minimum": 0, "exclusiveMaximum": 10**18},
            {"type": "string", "pattern": rf"^\s*{_DIMENSION}\s*$"},
        ]
    }
    return {
        "description": "Dimensions: names, sizes, `...`, arithmetic over names, or, in outputs, a "
        "name with a bound.",
        "examples": ["[batch, 3]", "[..., seq+1]", "[kept<=100]"],
        "anyOf": [
            {"type": "string", "pattern": rf"^\s*{_SHAPE}$"},
            {"type": "array", "items": dimension},
        ],
    }


def _dtype() -> dict[str, Any]:
    return {
        "description": "A dtype, several to choose from, or that of an input.",
        "examples": ["float32", ["float32", "bfloat16"], {"like": "x"}],
        "anyOf": [
            {"enum": list(dtypes.DTYPES)},
            {"type": "string", "pattern": rf"^\s*(?:{_UNION}|{_LIKE})\s*$"},
            {
                "type": "array",
                "minItems": 1,
                "uniqueItems": True,
                "items": {"enum": list(dtypes.DTYPES)},
            },
            {
                "type": "object",
                "required": ["like"],
                "additionalProperties": False,
                "properties": {"like": {"type": "string", "minLength": 1}},
            },
        ],
    }


def _shorthand() -> dict[str, Any]:
    return {
        "description": "A dtype and a shape.",
        "type": "string",
        "pattern": rf"^\s*(?:{_UNION}|{_LIKE})\s*{_SHAPE}$",
        "examples": ["float32[batch, 3]", "int64[]", "float32|bfloat16[n]", "like x[n]"],
    }


def _value() -> dict[str, Any]:
    scalar = {"type": ["boolean", "number", "string", "null"]}
    return {"anyOf": [scalar, {"type": "array", "items": scalar}]}


def _static() -> dict[str, Any]:
    one = rf"(?:null|{_KIND}|list\[\s*{_KIND}\s*\])"
    fields = {
        "type": {
            "examples": ["bool", "int|null", "list[int]"],
            "anyOf": [
                {"type": "null"},
                {"type": "string", "pattern": rf"^\s*{one}(?:\s*\|\s*{one})*\s*$"},
                {
                    "type": "array",
                    "minItems": 1,
                    "uniqueItems": True,
                    "items": {
                        "anyOf": [{"const": None}, {"type": "string", "pattern": f"^{one}$"}]
                    },
                },
            ],
        },
        "default": _ref("value"),
        "choices": {"type": "array", "minItems": 1, "uniqueItems": True, "items": _ref("value")},
        "doc": {"type": ["string", "null"]},
    }
    long = {
        "additionalProperties": False,
        "properties": _described(StaticSpec, fields),
    }
    return {
        "description": "A default, which tells the type as well, or a mapping with type, default, "
        "choices and doc.",
        "type": ["boolean", "number", "string", "null", "array", "object"],
        "if": {"type": "object"},
        "then": long,
        "else": _ref("value"),
    }


def _node(kind: str, **own: dict[str, Any]) -> dict[str, Any]:
    """An array, a group of nodes or a list of them; the form decides, for short complaints.

    Args:
        kind: ``input`` or ``output``.
        **own: What its fields may be that differ between both.
    """
    fields = {
        "dtype": _ref("dtype"),
        "shape": _ref("shape"),
        "differentiable": {"type": "boolean"},
        "doc": {"type": ["string", "null"]},
        **own,
    }
    # As `TensorSpec` refuses it: a dtype without tangents that claims to be differentiable.
    without = [row.name for row in dtypes.DTYPES.values() if not row.differentiable]
    array = {
        "required": ["dtype", "shape"],
        "additionalProperties": False,
        "properties": _described(TensorSpec, fields),
        "if": {"properties": {"dtype": {"enum": without}}},
        "then": {"properties": {"differentiable": {"const": False}}},
    }
    group = {
        "additionalProperties": _ref(kind),
        "propertyNames": {"minLength": 1},
    }
    return {
        "description": f"One {kind}: `float32[batch, 3]`, a mapping with dtype and shape, a "
        "group of named arrays, or a list.",
        "type": ["string", "object", "array"],
        "allOf": [
            {"if": {"type": "string"}, "then": _ref("shorthand")},
            {"if": {"type": "array"}, "then": {"items": _ref(kind)}},
            {
                "if": {"type": "object"},
                "then": {"if": {"required": ["dtype"]}, "then": array, "else": group},
            },
        ],
    }


def _described(
    model: type[BaseModel], properties: dict[str, Any], aliases: dict[str, str] | None = None
) -> dict[str, Any]:
    """``properties``, each with what the model's docstring says of it."""
    texts = {(aliases or {}).get(name, name): text for name, text in _attributes(model).items()}
    return {name: {"description": texts[name], **rest} for name, rest in properties.items()}


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    # Docstrings are the one place where fields are described, as `name: text` below `Attributes`.
    section = inspect.cleandoc(model.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.replace("``", "`").split()) for name, text in found}


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n")[0]
