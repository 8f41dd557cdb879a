"""Made-up arrays for real runs: small, and the same in every run."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from ...dtypes import DTYPES
from .cases import Case, Path


class Values:
    """Makes the arrays of one call.

    Floats and complex numbers are normal; integers are below every size of the call, so that
    they can stand for an index or a label; booleans are either.
    """

    def __init__(self, label: str, case: Case) -> None:
        self._label = label
        sizes = [size for _, size in case.sizes]
        self._bound = max(1, min(sizes, default=2))

    def make(self, path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """An array for the input at ``path``; dtypes that numpy lacks come as float32."""
        # Not `hash`, which differs from process to process.
        source = np.random.default_rng(zlib.crc32(f"{self._label}/{'/'.join(path)}".encode()))
        kind = DTYPES[dtype].kind
        if kind == "bool":
            return source.integers(0, 2, shape).astype(bool)
        if kind == "int":
            return source.integers(0, min(self._bound, 100), shape).astype(dtype)
        normal = source.standard_normal(shape)
        if kind == "complex":
            return (normal + 1j * source.standard_normal(shape)).astype(dtype)
        return normal.astype(dtype if dtype in ("float64", "float16") else "float32")


def direction_like(array: Any, seed: int) -> np.ndarray:
    """Normal numbers of an array's shape, complex if it is."""
    source = np.random.default_rng(seed)
    found: np.ndarray = source.standard_normal(np.shape(array))
    if np.iscomplexobj(array):
        found = found + 1j * source.standard_normal(np.shape(array))
    return found
