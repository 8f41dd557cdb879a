"""What the JAX side needs of a torch op: the seam between the two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..planner.array_signature import ArraySig
from ..planner.aten_program import AtenProgram
from ..planner.op_steps import Steps

Indices = tuple[int, ...]
Dims = tuple[int | None, ...]


class LinearCallLike(Protocol):
    """An op and which operands it reads; see `torchside.derive.linear_call`."""

    @property
    def op(self) -> Any:
        """What to run."""

    @property
    def operands(self) -> Indices:
        """Which operands of the linear call it reads, in its own order."""


class LinearizedLike(Protocol):
    """A derivative; see `torchside.derive.linear_part`."""

    @property
    def op(self) -> Any:
        """The function."""

    label: str
    wrt: Indices
    diff_outputs: Indices
    grad_inputs: Indices
    residuals: tuple[ArraySig, ...]
    refused: Mapping[int, str]

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

    def linear_call(self, transposed: bool, ins: Indices, outs: Indices) -> LinearCallLike:
        """What computes the linear part."""

    def function(self, transposed: bool, ins: Indices, outs: Indices) -> LinearCallLike:
        """The same as a function of the inputs too, to be differentiated again."""

    def as_of_now(self, is_vjp: bool) -> LinearizedLike:
        """The same for a forward that has just run; see `torchside.derive.linear_part`."""

    def refuse_changed(self) -> None:
        """Object to weights that have changed since the forward ran, where that is known."""

    def batched(
        self, size: int, dims: Dims, transposed: bool, ins: Indices, outs: Indices
    ) -> LinearizedLike | None:
        """The same for a batch, if one call can do it."""


class WatchLike(Protocol):
    """What torch did in a thread since then; see `torchside.handler.failure_messages`."""

    @property
    def succeeded(self) -> bool:
        """Whether torch was called, and did not fail."""

    @property
    def failure(self) -> BaseException | None:
        """What to raise, if it failed."""


class RoleLike(Protocol):
    """What an op is to other ops; see the roles in `torchside.op.torch_op`.

    Attributes:
        tag: ``with tangents``: it gives the results of another ``op`` and the tangents by ``wrt``.
            ``saving forward``: it gives a function's results and the residuals of ``linear``.
    """

    tag: str


class FamilyLike(Protocol):
    """Knows what derives from an op and what batches it; see `torchside.op_family`."""

    def linearize(self, op: Any, wrt: Indices) -> Any:
        """The derivative by these inputs."""

    def pushforward(self, op: Any, wrt: Indices) -> Any:
        """Results and tangents together."""

    def transposed(self, op: Any, wrt: Indices, outs: Indices, known: Any) -> Any:
        """The derivative by inputs in which the op is linear."""

    def batched(self, op: Any, size: int, dims: Dims) -> Any:
        """The op for a batch."""

    def island(self, op: Any, first: int, last: int) -> Any:
        """What runs some steps of the op's program by torch."""

    def verifier(self, op: Any) -> Any:
        """What compares operands and results of the op's program with torch."""


class OpLike(Protocol):
    """A torch function over flat tensors; see `torchside.op.torch_op`."""

    @property
    def label(self) -> str:
        """Name for messages."""

    @property
    def key(self) -> str:
        """Of the native table."""

    @property
    def aten(self) -> AtenProgram | None:
        """What JAX's own operations are made of, in place of a call."""

    @property
    def inputs(self) -> tuple[ArraySig, ...]:
        """Flat inputs."""

    @property
    def outputs(self) -> tuple[ArraySig, ...]:
        """Flat outputs."""

    @property
    def aliases(self) -> tuple[tuple[int, int], ...]:
        """Inputs that it writes to, each with the output that has its memory."""

    @property
    def handle(self) -> Any:
        """Keeps the op in the native table."""

    @property
    def role(self) -> Any:
        """What it is to other ops; a `RoleLike`."""

    @property
    def family(self) -> FamilyLike:
        """Knows what derives from it and what batches it."""

    @property
    def recipe(self) -> str:
        """What another process plans the function's own op from."""

    @property
    def steps(self) -> Steps:
        """How the op derives from that."""

    @property
    def unrolled(self) -> bool:
        """Whether ``jax.vmap`` writes one call for each element into the program."""

    @property
    def is_recorded(self) -> bool:
        """Whether XLA may record its calls on a GPU and run what they launched in their place."""

    @property
    def no_islands(self) -> str:
        """Where a contract says that torch runs no part of it; empty if it may."""

    @property
    def verified(self) -> bool:
        """Whether what XLA gives is compared with what torch gives, once."""

    @property
    def draws(self) -> bool:
        """Whether it may draw random numbers, so that another run gives other results."""

    @property
    def has_double(self) -> bool:
        """Whether its key could mean another function where only the code is known."""

    @property
    def keeper(self) -> dict[Any, Any] | None:
        """Where compiled programs are kept; None once nobody can call the op."""

    def refused(self, error: Exception) -> Exception:
        """The error itself; an eager call whose compilation it fails raises it."""

    def translated(self, error: BaseException) -> BaseException | None:
        """What to raise in place of JAX's error; None if the error is not ours."""

    def watch(self) -> WatchLike:
        """What torch does in this thread from now on."""


def shapes_of(sigs: Sequence[ArraySig]) -> list[tuple[tuple[int, ...], str]]:
    """(shape, JAX dtype) pairs."""
    return [(sig.shape, sig.dtype) for sig in sigs]


def saved_for(op: OpLike) -> LinearizedLike | None:
    """The linear part that an op saves residuals for; None if it saves none."""
    role = op.role
    return role.linear if role.tag == "saving forward" else None


def taken_apart(op: OpLike) -> tuple[OpLike, Indices] | None:
    """Of an op that gives results and tangents together: the function, and by what.

    None for others.
    """
    role = op.role
    return (role.op, role.wrt) if role.tag == "with tangents" else None
