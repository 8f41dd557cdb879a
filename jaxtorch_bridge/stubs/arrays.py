"""One array of a contract as a jaxtyping annotation."""

from __future__ import annotations

from ..spec.tensor import TensorSpec
from .names import Names

# Where capital letters alone do not give jaxtyping's name. Version 0.3 has none for the last one;
# `Shaped` stands for any dtype.
_SPECIAL = {"bfloat16": "BFloat16", "float8_e8m0fnu": "Shaped"}


def jaxtyping_name(dtype: str) -> str:
    """The name in jaxtyping of a dtype of `jaxtorch_bridge.dtypes`."""
    special = _SPECIAL.get(dtype)
    return special or dtype.replace("_", "").capitalize().replace("Uint", "UInt")


def annotation(leaf: TensorSpec, array: str, names: Names) -> str:
    """``Float32[Array, "batch 3"]``, with ``array`` as the array type."""
    # jaxtyping tells dimensions apart by spaces, and ours print without any.
    dimensions = " ".join(str(one) for one in leaf.shape.dimensions)
    return f'{names.use(jaxtyping_name(leaf.dtype))}[{names.use(array)}, "{dimensions}"]'
