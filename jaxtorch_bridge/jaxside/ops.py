"""What the JAX side needs of a torch op: the seam between the two sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..planner.signature import ArraySig


class LinearizedLike(Protocol):
    """A derivative; see `torchside.linearize.Linearized`."""

    wrt: tuple[int, ...]
    forward: Any
    residuals: tuple[ArraySig, ...]
    diff_outputs: tuple[int, ...]
    grad_inputs: tuple[int, ...]
    pullback: Any
    pullback_inputs: tuple[int, ...]


class OpLike(Protocol):
    """A torch function over flat tensors; see `torchside.op.TorchOp`."""

    label: str
    key: str
    inputs: tuple[ArraySig, ...]
    outputs: tuple[ArraySig, ...]
    handle: Any
    keeper: dict[Any, Any] | None

    def linearize(self, wrt: tuple[int, ...]) -> LinearizedLike:
        """The derivative by these inputs."""


def shapes_of(sigs: Sequence[ArraySig]) -> list[tuple[tuple[int, ...], str]]:
    """(shape, JAX dtype) pairs."""
    return [(sig.shape, sig.dtype) for sig in sigs]
