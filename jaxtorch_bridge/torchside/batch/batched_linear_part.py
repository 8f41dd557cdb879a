"""The linear part of a derivative for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...errors import DifferentiationError
from ...planner.array_signature import ArraySig
from ..derive.linear_part import Kernel, Linearized
from ..functions.source import Source
from ..op.torch_op import TorchOp

Dims = tuple[int | None, ...]


class BatchedLinearized:
    """The linear part of a derivative for a whole batch; see `Linearized`.

    Linear operands and results have the batch first; inputs and residuals have it where
    ``dims`` says, or not at all.

    Attributes:
        base: Of one element.
        size: Of the batch.
        dims: For every input and residual.
        op: The batched function, where it is known.
    """

    def __init__(self, base: Linearized | BatchedLinearized, size: int, dims: Dims) -> None:
        self.base = base
        self.size = size
        self.dims = dims
        self.op: TorchOp | None = None
        self.label: str = base.label
        self.source: Source = base.source
        self.wrt: tuple[int, ...] = base.wrt
        self.diff_outputs: tuple[int, ...] = base.diff_outputs
        self.grad_inputs: tuple[int, ...] = base.grad_inputs
        self.residuals: tuple[ArraySig, ...] = base.residuals
        self.batched_forms: dict[Any, BatchedLinearized] = {}

    @property
    def unrolled(self) -> bool:
        """See `Linearized`."""
        return self.base.unrolled

    def __repr__(self) -> str:
        return f"Batched({self.base!r}, {self.size})"

    @property
    def nonlinear_count(self) -> int:
        """See `Linearized`."""
        return self.base.nonlinear_count

    def linear_sigs(self, transposed: bool, ins: Sequence[int], outs: Sequence[int]) -> Any:
        """See `Linearized`."""
        return tuple(
            with_batch(sigs, (0,) * len(sigs), self.size)
            for sigs in self.base.linear_sigs(transposed, ins, outs)
        )

    def kernel(self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]) -> Kernel:
        """See `Linearized`."""
        return self._batched(self.base.kernel(transposed, ins, outs))

    def function(self, transposed: bool, ins: tuple[int, ...], outs: tuple[int, ...]) -> Kernel:
        """See `Linearized`."""
        return self._batched(self.base.function(transposed, ins, outs))

    def batched(
        self,
        size: int,
        dims: Dims,
        transposed: bool,
        ins: tuple[int, ...],
        outs: tuple[int, ...],
    ) -> BatchedLinearized | None:
        """See `batch_linear`."""
        return batch_linear(self, size, dims, transposed, ins, outs)

    def _batched(self, kernel: Kernel) -> Kernel:
        dims = kernel_dims(kernel, self.dims)
        found = kernel.op.batched(self.size, dims, loop=True)
        if found.op is None:
            raise DifferentiationError(
                f"{kernel.op.label}: no derivative for a batch of {self.size}: {found.failure}. "
                "Call the function under jax.lax.map instead of jax.vmap."
            )
        return Kernel(found.op, kernel.operands)


def kernel_dims(kernel: Kernel, dims: Dims) -> Dims:
    """Batch axes of a kernel's operands: linear ones have it first."""
    return tuple(dims[index] if index < len(dims) else 0 for index in kernel.operands)


def batched_linearized(
    base: Linearized | BatchedLinearized, size: int, dims: Dims
) -> BatchedLinearized:
    """The batched form, always the same object for the same batch."""
    found = base.batched_forms.get((size, dims))
    if found is None:
        found = base.batched_forms[size, dims] = BatchedLinearized(base, size, dims)
    return found


def batch_linear(
    base: Linearized | BatchedLinearized,
    size: int,
    dims: Dims,
    transposed: bool,
    ins: tuple[int, ...],
    outs: tuple[int, ...],
) -> BatchedLinearized | None:
    """The batched form if one call can do what is asked, otherwise None.

    Args:
        base: Of one element.
        size: Of the batch.
        dims: Batch axes of inputs and residuals.
        transposed: See `Linearized.kernel`.
        ins: Likewise.
        outs: Likewise.
    """
    kernel = base.kernel(transposed, ins, outs)
    if kernel.op.batched(size, kernel_dims(kernel, dims)).op is None:
        return None
    return batched_linearized(base, size, dims)


def with_batch(
    sigs: Sequence[ArraySig], dims: Sequence[int | None], size: int
) -> tuple[ArraySig, ...]:
    """Signatures with a batch axis where ``dims`` says."""
    return tuple(
        sig if dim is None else replace(sig, shape=(*sig.shape[:dim], size, *sig.shape[dim:]))
        for sig, dim in zip(sigs, dims, strict=True)
    )
