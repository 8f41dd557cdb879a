"""Sizes that meet a contract's constraints."""

from __future__ import annotations

import pytest

from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.tools.check.cases import (
    first_sizes,
    left_out,
    other_sizes,
    sizes_together,
    static_choices,
)
from jaxtorch_bridge.tools.check.sizes import SizeSearch


def contract(inputs, constraints=(), outputs="float32[]", **more):
    return load_spec(
        {
            "schema": "jaxtorch/1",
            "name": "f",
            "version": "1.0.0",
            "inputs": inputs,
            "outputs": {"y": outputs},
            "constraints": list(constraints),
            **more,
        }
    )


@pytest.mark.parametrize(
    "constraints",
    [
        ["a % b == 0"],
        ["a == 64*b", "c >= 100"],
        ["a % 128 == 0", "b <= 2", "c > a"],
        ["a + b == 77", "a*b > 1000"],
        ["a == b", "b == c", "c == d"],
        ["a // b == 3", "a != 3*b"],
        ["a % (2*b) == 0", "b % c == 1", "d == a*b"],
        ["64 == a", "b == 3*a"],
    ],
)
def test_constraints_are_met(constraints):
    spec = contract({"x": "float32[a, b, c, d]"}, constraints)
    search = SizeSearch(spec)
    base = next(first_sizes(spec, search))
    tried = [base, *(sizes for _, sizes in other_sizes(search, base))]
    for sizes in tried:
        assert sizes.keys() == {"a", "b", "c", "d"}
        assert all(one.holds(sizes) for one in spec.constraints)
        assert min(sizes.values()) >= 1


def test_arithmetic_gives_sizes():
    spec = contract({"x": "float32[a, b]", "w": "float32[a-b]"}, outputs="float32[(a-b)//4]")
    search = SizeSearch(spec)
    for sizes in [*first_sizes(spec, search)]:
        assert (sizes["a"] - sizes["b"]) // 4 >= 1


def test_sizes_differ_where_they_may():
    spec = contract({"x": "float32[a, b, c, d]"})
    (first, *_) = first_sizes(spec, SizeSearch(spec))
    assert len(set(first.values())) == 4


def test_every_dimension_changes():
    spec = contract({"x": "float32[a, b]"}, ["a >= 2"])
    search = SizeSearch(spec)
    others = list(other_sizes(search, {"a": 2, "b": 3}))
    assert others == [
        ("a", {"a": 4, "b": 3}),
        ("a", {"a": 3, "b": 3}),
        ("a", {"a": 1031, "b": 3}),
        ("b", {"a": 2, "b": 6}),
        ("b", {"a": 2, "b": 4}),
        ("b", {"a": 2, "b": 1031}),
        ("b", {"a": 2, "b": 1}),
    ]


def test_large_sizes_and_all_at_once_meet_constraints():
    spec = contract({"x": "float32[a, b]"}, ["a % 2 == 0", "b <= 5", "a % 8 == 0 "])
    search = SizeSearch(spec)
    base = {"a": 8, "b": 3}
    assert ("a", {"a": 1032, "b": 3}) in list(other_sizes(search, base))
    found = list(sizes_together(search, base))
    assert {one["a"] for one in found} >= {16}
    assert all(search.fits(one) for one in found)
    assert len(found) > 1


def test_a_contradiction_is_told_soon():
    spec = contract({"x": "float32[a, b, c, d]"}, ["a < b", "b < c", "c < d", "d < a"])
    assert list(first_sizes(spec, SizeSearch(spec))) == []


def test_choices():
    optional = {"dtype": "float32", "shape": "[a]", "optional": True}
    spec = contract({"x": "float32[a]", "m": optional}, static={"causal": False, "power": 2})
    assert static_choices(spec) == (
        (("causal", False), ("power", 2)),
        (("causal", True), ("power", 2)),
    )
    assert left_out(spec) == (frozenset(), frozenset({("m",)}))
    many = contract({"x": "float32[a]"}, static={f"s{i}": False for i in range(10)})
    choices = static_choices(many)
    assert len(choices) == 12
    assert all(value for _, value in choices[-1])
