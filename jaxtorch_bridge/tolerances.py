"""How far two ways of computing the same may be apart, for the checks of claims."""

from __future__ import annotations

_KNOWN = {"float64": 1e-9, "complex128": 1e-9, "float32": 1e-4, "complex64": 1e-4}
# Of 16 bits and less: bfloat16 keeps 8 bits of a number.
_OTHERS = 5e-2


def tolerance_of(dtype: str) -> float:
    """What sums in another order may differ by, relative to the greatest value of an array.

    Not to a fixed size: a loss of 1e-8 would agree with anything.

    Args:
        dtype: Of floats or complex numbers.
    """
    return _KNOWN.get(dtype, _OTHERS)
