"""What a linear call runs: an op, and which of the call's operands that reads."""

from __future__ import annotations

from dataclasses import dataclass

from ..op.torch_op import TorchOp

Dims = tuple[int | None, ...]


@dataclass(frozen=True)
class LinearCall:
    """What computes the linear part of a derivative: an op and the operands that it reads.

    Attributes:
        op: What to run.
        operands: For each of its operands, which operand of the linear call it is: inputs,
            residuals and linear operands counted through.
    """

    op: TorchOp
    operands: tuple[int, ...]

    def batch_axes(self, dims: Dims) -> Dims:
        """Of its operands, from those of inputs and residuals: linear ones have it first."""
        return tuple(dims[index] if index < len(dims) else 0 for index in self.operands)
