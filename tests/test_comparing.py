"""What tests take for equal and for near enough, whatever it is held in."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal, is_close

SIDES = {"numpy": np.asarray, "jax": jnp.asarray, "torch": torch.tensor}
# How far values may be apart, and how far not.
NEAR = {
    "float32": (6e-6, 7e-6),
    "float64": (1.8e-12, 1.9e-12),
    "float16": (5e-3, 7e-3),
    "bfloat16": (2e-2, 4e-2),
    "complex64": (6e-6, 7e-6),
    "complex128": (1.8e-12, 1.9e-12),
}


@pytest.mark.parametrize("dtype", NEAR)
def test_precision_decides(dtype):
    near, far = NEAR[dtype]
    with jax.enable_x64(True):
        one = jnp.asarray([1.0, 0.0], dtype)
        assert_close(one + jnp.asarray([near, -near], dtype), one)
        assert not is_close(one + jnp.asarray([far, 0], dtype), one)
        assert not is_close(one + jnp.asarray([0, far], dtype), one)


@pytest.mark.parametrize("theirs", SIDES)
@pytest.mark.parametrize("mine", SIDES)
def test_the_size_of_the_greatest_value_decides(mine, theirs):
    mine, theirs = SIDES[mine], SIDES[theirs]
    for size in (1e-20, 1.0, 1e20):
        values = size * np.float32([1, 1e-3])
        assert_close(mine(values), theirs(values * np.float32([1, 1.004])))
        assert not is_close(mine(values), theirs(values * np.float32([1, 1.02])))


def test_the_lower_precision_of_both_sides_decides():
    exact = np.float64([1 / 3])
    for dtype in ("float16", ml_dtypes.bfloat16, np.float32):
        assert_close(exact.astype(dtype), exact)
        assert_close(exact, exact.astype(dtype))
    assert not is_close(np.float32(exact).astype(np.float64), exact)
    assert_close(np.float32(exact).astype(np.float64), exact, computed_in="float32")


def test_what_is_left_of_greater_numbers_and_long_chains():
    assert not is_close(np.float32([1e-6]), np.float32([0]))
    assert_close(np.float32([1e-6]), np.float32([0]), scale=1)
    assert_close(np.float32([1.00005]), np.float32([1]), factor=10)


@pytest.mark.parametrize("compare", [assert_close, assert_equal])
def test_what_is_no_number_stands_in_the_same_places(compare):
    values = np.float32([np.nan, np.inf, -np.inf, 1])
    compare(torch.tensor(values), values)
    for place, other in ((0, 1.0), (1, -np.inf), (2, np.nan), (3, np.nan), (3, np.inf)):
        wrong = values.copy()
        wrong[place] = other
        with pytest.raises(AssertionError):
            compare(wrong, values)


@pytest.mark.parametrize("compare", [assert_close, assert_equal])
def test_integers_and_booleans_are_equal(compare):
    compare(np.int64([2**60]), np.int64([2**60]))
    for one, other in (
        (np.int64([2**60]), np.int64([2**60 + 1])),
        (torch.tensor([True]), torch.tensor([False])),
        (np.uint8([0]), np.uint8([255])),
    ):
        with pytest.raises(AssertionError, match=r"at \[0\]; they differ by 1|by 255"):
            compare(one, other)


def test_exactly_is_to_the_last_bit():
    one = np.float32([1])
    assert_equal(one, [1])
    with pytest.raises(AssertionError, match="0 is allowed; 1 of 1 values"):
        assert_equal(np.nextafter(one, one + 1), one)


@pytest.mark.parametrize("compare", [assert_close, assert_equal])
def test_structures_shapes_and_dtypes_are_the_same(compare):
    x = jnp.ones(2)
    compare({"a": [x, None, 2]}, {"a": [torch.ones(2), None, 2]})
    compare([x, x], jnp.ones((2, 2)))
    compare(x, 1)
    for found, expected, words in (
        ({"a": x}, {"b": x}, "found PyTreeDef"),
        ({"a": x}, {"a": jnp.ones((1, 2))}, r"\['a'\]: found shape \(2,\), expected \(1, 2\)"),
        (x, jnp.ones(1), "found shape"),
        (x, x.astype("bfloat16"), "found float32, expected bfloat16"),
        (x, torch.ones(2).double(), "found float32, expected float64"),
    ):
        with pytest.raises(AssertionError, match=words):
            compare(found, expected)


def test_the_message_says_where_and_how_far():
    expected = np.ones((2, 3), np.float32)
    found = expected.copy()
    found[1, 2] = 1.5
    with pytest.raises(AssertionError) as caught:
        assert_close([found], [expected], label="gradient")
    assert str(caught.value) == (
        "gradient, [0]: found 1.5 (float32), expected 1.0 (float32) at [1, 2]; "
        "they differ by 0.5, and 6.42e-06 is allowed; 1 of 6 values are too far apart"
    )


def test_scripts_in_strings_compare_in_this_way_too():
    """Ruff, which tells of everything else (TID251 in tests/ruff.toml), sees no code in strings."""
    other = re.compile(r"allclose|isclose|array_equal|(np|numpy|torch)\.testing|pytest\.approx")
    here = Path(__file__)
    for file in here.parent.rglob("*.py"):
        if file != here:
            assert not other.search(file.read_text(encoding="utf-8")), file
