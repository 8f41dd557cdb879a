"""Sizes of results as formulas: found from samples, and right at sizes that were no samples."""

from __future__ import annotations

import pytest

from jaxtorch_bridge.spec.language.shapes import evaluate, parse_dimension
from jaxtorch_bridge.tools.infer.formulas import formula_of

BASE = {"a": 8, "b": 5, "c": 14}


def samples(size):
    tried = [dict(BASE)]
    for name, one in BASE.items():
        tried += [{**BASE, name: other} for other in (2 * one, 3 * one, one + 1, one + 3)]
    tried.append({name: 2 * one for name, one in BASE.items()})
    return [(at, size(**at)) for at in tried]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (lambda a, b, c: 7, "7"),
        (lambda a, b, c: b, "b"),
        (lambda a, b, c: a + c, "a+c"),
        (lambda a, b, c: 3 * b - 2, "3*b-2"),
        (lambda a, b, c: a - b + 30, "a-b+30"),
        (lambda a, b, c: 100 - a, "100-a"),
        (lambda a, b, c: a * c, "a*c"),
        (lambda a, b, c: 2 * a * b * c, "2*a*b*c"),
        (lambda a, b, c: c // 2, "c//2"),
        (lambda a, b, c: (c - 1) // 2 + 1, "(c+1)//2"),
        (lambda a, b, c: (c - b + 3) // 2, "(c-b+3)//2"),
        (lambda a, b, c: a**2 + b, None),
        (lambda a, b, c: max(a, b), None),
    ],
)
def test_formulas(size, text):
    found = formula_of(samples(size), list(BASE))
    assert found == text
    if found is not None:
        term = parse_dimension(found)
        for at in ({"a": 9, "b": 4, "c": 31}, {"a": 21, "b": 7, "c": 40}):
            assert evaluate(term, at) == size(**at)
