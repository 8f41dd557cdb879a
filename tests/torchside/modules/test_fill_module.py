"""The native loop that puts tensors where a module has its parameters."""

from __future__ import annotations

import sys
from collections import OrderedDict

import pytest

from jaxtorch_bridge.torchside.handler.native_module import native

fill_module = native().fill_module


def test_it_sets_items_of_dicts_and_lists():
    plain, ordered, row = {"a": 0}, OrderedDict(b=0, c=0), [0, 0]
    fill_module([plain, ordered, row], ["a", "b", 1], ["x", "y"], [0, 1, 1])
    assert (plain, dict(ordered), row) == ({"a": "x"}, {"b": "y", "c": 0}, [0, "y"])
    assert list(ordered) == ["b", "c"]


def test_it_keeps_no_reference():
    value, home = object(), {}
    before = sys.getrefcount(value)
    for _ in range(10):
        fill_module([home], ["a"], [value], [0])
        fill_module([home], ["a"], [None], [0])
    assert sys.getrefcount(value) == before


def test_an_error_of_a_container_is_passed_on():
    with pytest.raises(IndexError, match="assignment index out of range"):
        fill_module([[]], [3], ["x"], [0])
    with pytest.raises(TypeError, match="unhashable"):
        fill_module([{}], [[]], ["x"], [0])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([], [], []), TypeError, "fill_module: expected four lists"),
        (((), [], [], []), TypeError, "fill_module: expected four lists"),
        (
            ([{}], [], [], []),
            ValueError,
            "expected a key and an index for each container",
        ),
        (
            ([{}], ["a"], [], []),
            ValueError,
            "expected a key and an index for each container",
        ),
        (([{}], ["a"], [], [0]), IndexError, "fill_module: no value of that index"),
        (([{}], ["a"], ["x"], [-1]), IndexError, "fill_module: no value of that index"),
        (([{}], ["a"], ["x"], ["0"]), TypeError, "integer"),
    ],
)
def test_bad_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        fill_module(*arguments)
