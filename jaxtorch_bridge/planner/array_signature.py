"""What is known of one array of a call before it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..dtypes import DTYPES


@dataclass(frozen=True)
class ArraySig:
    """One array that crosses the bridge.

    Attributes:
        path: Where it stands, in the words of the call: ``q``, ``params['w']``, ``[0]``.
        shape: Its sizes.
        dtype: What JAX holds.
        torch_dtype: What torch sees; differs from ``dtype`` where x64 is off, or where a
            contract asks for a wider integer.
        differentiable: False for ints, bools and what a contract excludes.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    torch_dtype: str
    differentiable: bool = True

    @property
    def is_symbolic(self) -> bool:
        """Whether sizes are JAX's symbolic dimensions (`jax.export.symbolic_shape`)."""
        return not all(isinstance(size, int) for size in self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes on the JAX side."""
        return math.prod(self.shape) * DTYPES[self.dtype].size_bytes

    def __str__(self) -> str:
        # Part of op keys (`CallPlan.digest`): with another text exported programs find no op.
        sizes = ", ".join(str(size) for size in self.shape)
        seen = "" if self.dtype == self.torch_dtype else f" (torch: {self.torch_dtype})"
        return f"{self.dtype}[{sizes}]{seen}"


@dataclass(frozen=True)
class OutputMeta:
    """Shape and dtype of one result as torch gives it."""

    shape: tuple[int, ...]
    torch_dtype: str


def with_batch(
    sigs: Sequence[ArraySig], dims: Sequence[int | None], size: int
) -> tuple[ArraySig, ...]:
    """Signatures with a batch axis where ``dims`` says."""
    return tuple(
        sig if dim is None else replace(sig, shape=(*sig.shape[:dim], size, *sig.shape[dim:]))
        for sig, dim in zip(sigs, dims, strict=True)
    )
