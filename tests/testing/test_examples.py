"""How far apart two results are, by the measure of their greatest value."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from comparing import assert_close
from jaxtorch_bridge.testing.examples import gaps

AGREE = {
    "rounding of a sum": (np.float32([1.0, 1e-6]), np.float32([1.00001, -3e-6])),
    "the same at another size": (np.float32([1e-20]), np.float32([1.00001e-20])),
    "what is no number": (np.float32([np.nan, np.inf]), np.float32([np.nan, np.inf])),
    "half": (np.float16([1.0, 0.01]), np.float16([1.01, 0.02])),
    "bfloat16": (np.asarray([8.0], ml_dtypes.bfloat16), np.asarray([8.0625], ml_dtypes.bfloat16)),
    "complex": (np.complex64([1 + 1j]), np.complex64([1.00001 + 1j])),
    "nothing": (np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)),
    "zeros": (np.zeros(2, np.float32), np.zeros(2, np.float32)),
}
DIFFER = {
    "small": (np.float32([1e-8]), np.float32([2e-8]), 1e-8),
    "nothing and a little": (np.float32([1e-30]), np.float32([0.0]), 1e-30),
    "large": (np.float64([1e20]), np.float64([1e20 + 1e12]), 1e12),
    "NaN on one side": (np.float32([np.nan]), np.float32([1.0]), np.inf),
    "the other infinity": (np.float32([np.inf]), np.float32([-np.inf]), np.inf),
    "infinite on one side": (np.float32([np.inf, 1]), np.float32([1, 1]), np.inf),
    "long integers": (np.int64([2**60]), np.int64([2**60 + 1]), 1.0),
    "booleans": (np.array([True]), np.array([False]), 1.0),
    "conjugates": (np.complex64([1 + 1j]), np.complex64([1 - 1j]), 2.0),
}


@pytest.mark.parametrize("case", AGREE)
def test_what_agrees(case):
    assert not gaps(*AGREE[case]).any()


@pytest.mark.parametrize("case", DIFFER)
def test_what_differs(case):
    found, wanted, size = DIFFER[case]
    assert_close(gaps(found, wanted).max(), size, computed_in="float16")
