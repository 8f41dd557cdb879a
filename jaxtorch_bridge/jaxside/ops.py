"""What the JAX side needs of a torch op: the seam between the two sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..planner.signature import ArraySig


class LinearizedLike(Protocol):
    """A derivative; see `torchside.linearize.Linearized`."""

    @property
    def wrt(self) -> tuple[int, ...]:
        """Inputs that carry a tangent."""

    @property
    def forward(self) -> Any:
        """The op that computes outputs and residuals, or None."""

    @property
    def residuals(self) -> tuple[ArraySig, ...]:
        """What the forward saves."""

    @property
    def diff_outputs(self) -> tuple[int, ...]:
        """Outputs that carry a tangent."""

    @property
    def grad_inputs(self) -> tuple[int, ...]:
        """Inputs that get a cotangent."""

    @property
    def pullback(self) -> Any:
        """The op that runs backwards."""

    @property
    def pullback_inputs(self) -> tuple[int, ...]:
        """Inputs that the pullback reads."""


class OpLike(Protocol):
    """A torch function over flat tensors; see `torchside.op.TorchOp`."""

    label: str
    key: str
    inputs: tuple[ArraySig, ...]
    outputs: tuple[ArraySig, ...]
    handle: Any

    @property
    def keeper(self) -> dict[Any, Any] | None:
        """Where compiled forms are kept."""

    def linearize(self, wrt: tuple[int, ...]) -> LinearizedLike:
        """The derivative by these inputs."""


def shapes_of(sigs: Sequence[ArraySig]) -> list[tuple[tuple[int, ...], str]]:
    """(shape, JAX dtype) pairs."""
    return [(sig.shape, sig.dtype) for sig in sigs]
