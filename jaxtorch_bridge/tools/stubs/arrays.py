"""One array of a contract as a jaxtyping annotation."""

from __future__ import annotations

from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec
from .names import Names

# Where capital letters alone do not give jaxtyping's name. Version 0.3 has none for the last one;
# `Shaped` stands for any dtype.
_SPECIAL = {"bfloat16": "BFloat16", "float8_e8m0fnu": "Shaped"}


def jaxtyping_name(dtype: str) -> str:
    """The name in jaxtyping of a dtype of `jaxtorch_bridge.dtypes`."""
    special = _SPECIAL.get(dtype)
    return special or dtype.replace("_", "").capitalize().replace("Uint", "UInt")


def annotation(spec: CallableSpec, leaf: TensorSpec, array: str, names: Names) -> str:
    """``Float32[Array, "batch 3"]``, with ``array`` as the array type; a union for several dtypes.

    jaxtyping cannot say that an array has the dtype of another: such a one may have any that the
    other may.
    """
    # jaxtyping tells dimensions apart by spaces, and ours print without any.
    dimensions = " ".join(str(one) for one in leaf.shape.dimensions)
    kinds = dict.fromkeys(jaxtyping_name(one) for one in spec.dtypes_of(leaf))
    return " | ".join(f'{names.use(kind)}[{names.use(array)}, "{dimensions}"]' for kind in kinds)
