"""What the JAX side needs of a torch op: the seam between the two sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..planner.array_signature import ArraySig

Indices = tuple[int, ...]
Dims = tuple[int | None, ...]


class KernelLike(Protocol):
    """An op and which operands it reads; see `torchside.linearize.Kernel`."""

    @property
    def op(self) -> Any:
        """What to run."""

    @property
    def operands(self) -> Indices:
        """Which operands of the linear call it reads, in its own order."""


class LinearizedLike(Protocol):
    """A derivative; see `torchside.linearize.Linearized`."""

    op: Any
    label: str
    wrt: Indices
    diff_outputs: Indices
    grad_inputs: Indices
    residuals: tuple[ArraySig, ...]

    @property
    def unrolled(self) -> bool:
        """Whether one call for each element is written into the program."""

    @property
    def nonlinear_count(self) -> int:
        """How many operands come before the linear ones: inputs and residuals."""

    def linear_sigs(
        self, transposed: bool, ins: Sequence[int], outs: Sequence[int]
    ) -> tuple[tuple[ArraySig, ...], tuple[ArraySig, ...]]:
        """(linear operands, results) as signatures."""

    def kernel(self, transposed: bool, ins: Indices, outs: Indices) -> KernelLike:
        """What computes the linear part."""

    def function(self, transposed: bool, ins: Indices, outs: Indices) -> KernelLike:
        """The same as a function of the inputs too, to be differentiated again."""

    def batched(
        self, size: int, dims: Dims, transposed: bool, ins: Indices, outs: Indices
    ) -> LinearizedLike | None:
        """The same for a batch, if one call can do it."""


class WatchLike(Protocol):
    """What torch did in a thread since the watch was made; see `torchside.faults.Watch`."""

    @property
    def succeeded(self) -> bool:
        """Whether torch was called, and did not fail."""

    @property
    def failure(self) -> BaseException | None:
        """What to raise, if it failed."""


class OpLike(Protocol):
    """A torch function over flat tensors; see `torchside.op.TorchOp`."""

    label: str
    key: str
    inputs: tuple[ArraySig, ...]
    outputs: tuple[ArraySig, ...]
    aliases: tuple[tuple[int, int], ...]
    handle: Any
    primal: Any
    split: Any

    @property
    def unrolled(self) -> bool:
        """Whether ``jax.vmap`` writes one call for each element into the program."""

    @property
    def draws(self) -> bool:
        """Whether it may draw random numbers, so that another run gives other results."""

    @property
    def has_double(self) -> bool:
        """Whether its key could mean another function where only the code is known."""

    @property
    def keeper(self) -> dict[Any, Any] | None:
        """Where compiled forms are kept."""

    def linearize(self, wrt: Indices) -> Any:
        """The derivative by these inputs."""

    def pushforward(self, wrt: Indices) -> Any:
        """Results and tangents together."""

    def refused(self, error: Exception) -> Exception:
        """The error itself; an eager call whose compilation it fails raises it."""

    def translated(self, error: BaseException) -> BaseException | None:
        """What to raise in place of JAX's error; None if the error is not ours."""

    def watch(self) -> WatchLike:
        """What torch does in this thread from now on."""

    def batched(self, size: int, dims: Dims) -> Any:
        """The op for a batch."""


def shapes_of(sigs: Sequence[ArraySig]) -> list[tuple[tuple[int, ...], str]]:
    """(shape, JAX dtype) pairs."""
    return [(sig.shape, sig.dtype) for sig in sigs]
