"""The planner as a pure function: no array, no torch, no jax."""

from __future__ import annotations

import dataclasses

import pytest

from jaxtorch_bridge.errors import DtypeError, SpecMismatchError
from jaxtorch_bridge.planner.array_signature import OutputMeta
from jaxtorch_bridge.planner.build_plan import (
    ArrayArgument,
    CallFacts,
    contract_outputs,
    plan_call,
    plan_inputs,
    stable_text,
)
from jaxtorch_bridge.planner.explain import explain_plan
from jaxtorch_bridge.planner.output_inference import Inference
from jaxtorch_bridge.spec.files.load import load_spec

SPEC = {
    "schema": "jaxtorch/1",
    "name": "loss",
    "version": "1.2.0",
    "inputs": {"logits": "float32[batch, classes]", "labels": "int64[batch]"},
    "static": {"reduction": "mean"},
    "outputs": {"value": "float32[]", "hits": {"shape": "[batch]", "dtype": "bool"}},
}


def facts(*arrays, static=(), x64=False, code="c0de"):
    named = tuple(ArrayArgument(path, (path,), shape, dtype) for path, shape, dtype in arrays)
    return CallFacts("loss", code, named, tuple(static), (), x64, dict(static))


LOGITS = ("logits", (8, 10), "float32")
LABELS = ("labels", (8,), "int32")
INFERENCE = Inference((OutputMeta((), "float32"), OutputMeta((8,), "bool")), "tuple", "fake")


def plan(spec=None, call=None, inference=INFERENCE, paths=((0,), (1,))):
    spec = load_spec(spec) if spec else None
    call = call or facts(LOGITS, LABELS)
    inputs, sizes = plan_inputs(spec, call)
    return plan_call(spec, call, inputs, sizes, inference, paths)


def test_importing_the_planner_imports_neither_jax_nor_torch(run_python):
    script = """
import sys, jaxtorch_bridge.planner.build_plan, jaxtorch_bridge.planner.explain
print(sorted({"jax", "torch", "numpy"} & set(sys.modules)))
"""
    assert run_python(script).strip() == "[]"


def test_a_plan_is_frozen_hashable_and_equal_by_content():
    first, second = plan(SPEC), plan(SPEC)
    assert first == second
    assert hash(first) == hash(second)
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.name = "other"


def test_without_a_contract_torch_sees_what_jax_holds():
    found = plan()
    assert [sig.torch_dtype for sig in found.inputs] == ["float32", "int32"]
    assert [sig.differentiable for sig in found.inputs] == [True, False]
    assert found.label == "loss"
    assert [sig.path for sig in found.outputs] == ["output[0]", "output[1]"]


def test_a_contract_gives_torch_int64_labels():
    found = plan(SPEC)
    assert found.inputs[1].dtype == "int32"
    assert found.inputs[1].torch_dtype == "int64"
    assert dict(found.sizes) == {"batch": 8, "classes": 10}
    assert found.label == "loss@1.2.0"
    assert [sig.path for sig in found.outputs] == ["value", "hits"]


def test_a_contract_excludes_from_differentiation():
    spec = SPEC | {
        "inputs": {
            "logits": {"shape": "[batch, classes]", "dtype": "float32", "differentiable": False},
            "labels": "int64[batch]",
        }
    }
    assert not plan(spec).inputs[0].differentiable
    assert plan(spec).derivative == "none: no differentiable input"


def test_64_bit_outputs_are_narrowed_while_x64_is_off():
    inference = Inference((OutputMeta((3,), "int64"),), "leaf", "fake")
    narrow = plan(call=facts(LOGITS), inference=inference, paths=((),))
    wide = plan(call=facts(LOGITS, x64=True), inference=inference, paths=((),))
    assert (narrow.outputs[0].dtype, narrow.outputs[0].torch_dtype) == ("int32", "int64")
    assert wide.outputs[0].dtype == "int64"
    assert narrow.outputs[0].path == "output"


@pytest.mark.parametrize(
    "change",
    [
        {"call": facts(LOGITS, LABELS, code="0ther")},
        {"call": facts(("logits", (9, 10), "float32"), LABELS)},
        {"call": facts(LOGITS, LABELS, static=[("reduction", "'sum'")])},
        {
            "inference": Inference(
                (OutputMeta((), "float16"), OutputMeta((8,), "bool")), "t", "fake"
            )
        },
        {"spec": SPEC | {"version": "1.2.1"}, "call": facts(LOGITS, LABELS)},
    ],
)
def test_another_call_has_another_key(change):
    assert plan(**change).key != plan().key


def test_the_key_holds_name_version_and_digest():
    found = plan(SPEC)
    assert found.key == f"loss@1.2.0/{found.digest}"
    assert len(found.digest) == 16


def test_outputs_are_matched_to_the_contract_by_name_where_there_are_names():
    """JAX sorts a dict's keys: hits comes first, the contract lists value first."""
    inference = Inference((OutputMeta((8,), "bool"), OutputMeta((), "float32")), "dict", "fake")
    found = plan(SPEC, inference=inference, paths=(("hits",), ("value",)))
    assert [sig.path for sig in found.outputs] == ["hits", "value"]


def test_outputs_that_break_the_contract_are_refused_when_tracing():
    wrong = Inference((OutputMeta((2,), "float32"), OutputMeta((8,), "bool")), "t", "fake")
    with pytest.raises(SpecMismatchError, match=r"loss@1\.2\.0, output `value`.*when tracing"):
        plan(SPEC, inference=wrong)
    with pytest.raises(SpecMismatchError, match="output"):
        plan(SPEC, inference=Inference((OutputMeta((), "float32"),), "t", "fake"), paths=((),))


def test_the_contract_alone_can_give_the_outputs():
    spec = load_spec(SPEC)
    _, sizes = plan_inputs(spec, facts(LOGITS, LABELS))
    assert contract_outputs(spec, sizes) == (OutputMeta((), "float32"), OutputMeta((8,), "bool"))
    open_ended = load_spec(SPEC | {"outputs": {"found": "float32[count]"}})
    _, sizes = plan_inputs(open_ended, facts(LOGITS, LABELS))
    assert contract_outputs(open_ended, sizes) is None


def test_static_arguments_are_checked_by_the_contract():
    with pytest.raises(SpecMismatchError, match="reductoin"):
        plan(SPEC, call=facts(LOGITS, LABELS, static=[("reductoin", "'sum'")]))


def test_a_dtype_that_torch_lacks():
    with pytest.raises(DtypeError, match="argument `x`: dtype int4 cannot be handed to torch"):
        plan(call=facts(("x", (2,), "int4")))


def test_explain_says_how_and_at_what_price():
    extra = Inference(
        INFERENCE.outputs,
        "t",
        "made-up",
        ("fake: DataDependentOutputException: x",),
        random=True,
        made_up=("ones",),
    )
    planned = plan(SPEC, inference=extra)
    results = ["copied: it is small"] * len(planned.outputs)
    text = explain_plan(planned, ["by logits: recompute"], results=results)
    assert "logits  float32[8, 10]" in text
    assert "labels  int32[8] (torch: int64), not differentiable" in text
    assert "batch=8, classes=10" in text
    assert "taken from extra runs on made-up values (last resort): ones" in text
    assert "not fake: DataDependentOutputException: x" in text
    assert "extra runs   1 of the torch function" in text
    assert "XLA may merge two equal calls" in text
    assert "by logits: recompute" in text
    assert ", copied: it is small" in text


def test_static_text_holds_no_address():
    class Thing:
        pass

    assert " at 0x" not in stable_text(Thing())
    assert stable_text(0.1) == "0.1"
    assert stable_text(("a", 1)) == "('a', 1)"
