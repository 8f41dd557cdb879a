"""A diff without breaking changes, held against what calls are accepted and promised."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jaxtorch_bridge.errors import SpecError, SpecMismatchError
from jaxtorch_bridge.spec.compare.diff_contracts import diff_specs
from jaxtorch_bridge.spec.enforce.inputs import bind_inputs
from jaxtorch_bridge.spec.enforce.outputs import resolve_outputs
from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.spec.language.sizes import Sizes, resolve
from jaxtorch_bridge.spec.model import CallableSpec

NAMES = ("a", "b", "c")
NAME = st.sampled_from(NAMES)
DIMENSION = NAME | st.sampled_from(["2", "...", "a+1", "b*2", "c//2"])
SHAPE = st.lists(DIMENSION, max_size=2).filter(lambda shape: shape.count("...") < 2)
DTYPE = st.sampled_from(["float32", "bfloat16", "float32|bfloat16", "int64", "int32", "like x"])
CONSTRAINT = st.builds(
    "{} {} {}".format, NAME, st.sampled_from(["<", "<=", "==", "!="]), NAME | st.just("3")
)


def bounded(shape: list[str]) -> st.SearchStrategy[list[str]]:
    """The shape of an output, which may have a dimension with a bound."""
    return st.sampled_from([shape, ["k<=4", *shape], [*shape, "k<=a"]])


def array(dtype: str, shape: list[str], optional: bool = False) -> dict[str, Any]:
    kind = {"like": "x"} if dtype == "like x" else dtype.split("|")
    return {"dtype": kind, "shape": f"[{', '.join(shape)}]", "optional": optional}


@st.composite
def pairs(draw: st.DrawFn) -> list[CallableSpec]:
    """A contract, and the same with some parts drawn again; fewer where they are not valid."""
    parts = {
        "x": (DTYPE.filter(lambda one: one != "like x"), SHAPE, st.just(False)),
        "y": (DTYPE, SHAPE, st.booleans()),
        "z": (DTYPE, SHAPE, st.booleans()),
        "out": (DTYPE, SHAPE.flatmap(bounded), st.just(False)),
    }
    drawn: list[dict[str, tuple[Any, ...]]] = [{}, {}]
    for name, strategies in parts.items():
        drawn[0][name] = tuple(map(draw, strategies))
        drawn[1][name] = tuple(
            draw(one) if draw(st.integers(0, 3)) == 0 else kept
            for one, kept in zip(strategies, drawn[0][name], strict=True)
        )
    constraints = draw(st.lists(st.lists(CONSTRAINT, max_size=2), min_size=2, max_size=2))
    specs = []
    for each, limits in zip(drawn, constraints, strict=True):
        data = {
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "inputs": {name: array(*each[name]) for name in ("x", "y", "z")},
            "outputs": {"out": array(*each["out"][:2])},
            **({"constraints": limits} if limits else {}),
        }
        with contextlib.suppress(SpecError):
            specs.append(load_spec(data))
    return specs


@st.composite
def calls(draw: st.DrawFn, spec: CallableSpec) -> dict[tuple[str, ...], tuple[Any, str]]:
    sizes = Sizes(
        tuple((name, draw(st.integers(1, 5))) for name in NAMES),
        tuple(draw(st.lists(st.integers(1, 3), max_size=2))),
    )
    found = {}
    for path, leaf in spec.input_leaves():
        if not leaf.optional or draw(st.booleans()):
            shape = resolve(leaf.shape, sizes)
            found[path] = (shape, draw(st.sampled_from(spec.dtypes_of(leaf))))
    return found


@settings(max_examples=400)
@given(st.data())
def test_without_breaking_changes_old_calls_work_and_give_what_they_gave(data):
    drawn = data.draw(pairs())
    changes = diff_specs(*drawn) if len(drawn) == 2 else ()
    if len(drawn) < 2 or any(one.level == "breaking" for one in changes):
        return
    old, new = drawn
    for _ in range(4):
        call = data.draw(calls(old))
        try:
            bound = bind_inputs(old, call, x64=True)
            promised = resolve_outputs(old, bound)
        except SpecMismatchError:
            continue
        given_now = resolve_outputs(new, bind_inputs(new, call, x64=True))
        assert promised is None or given_now == promised, changes
