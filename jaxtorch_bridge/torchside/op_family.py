"""What derives from an op and what batches it: the one place that knows both."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable

from .batch.batched_op import Batched, batch
from .derive.forward_mode import Pushforward, pushforward
from .derive.linear_part import Linearized
from .derive.linearity import Known
from .derive.linearize import linearize
from .derive.transpose import Transposed, transpose
from .op.islands import island
from .op.torch_op import Function, Keeper, TorchOp
from .op.verified_lowering import verifier


class OpFamily:
    """The family of all ops that come from one planned function; see `torch_op.Family`.

    Args:
        keeper: Where the JAX side keeps compiled programs. The caller holds it: ops refer to it
            weakly.
        recipe: Gives what another process plans the function's own op from.
    """

    def __init__(self, keeper: Keeper, recipe: Callable[[], str]) -> None:
        self._keeper = weakref.ref(keeper)
        self._recipe = recipe

    @property
    def keeper(self) -> Keeper | None:
        """Where the JAX side keeps compiled programs; None once nobody can call the ops."""
        return self._keeper()

    @property
    def recipe(self) -> str:
        """What another process plans the function's own op from; see `calling.recipe`."""
        # Made when it is asked for: few ops are exported.
        return self._recipe()

    def linearize(self, op: TorchOp, wrt: tuple[int, ...]) -> Linearized:
        """The derivative with respect to these inputs, built at first use.

        Raises:
            DifferentiationError: No engine works.
        """

        def build() -> Linearized:
            with _context(op):
                return linearize(op, wrt)

        return op.derived.find(("linearize", wrt), build)

    def pushforward(self, op: TorchOp, wrt: tuple[int, ...]) -> Pushforward:
        """Results and tangents from one run, built at first use.

        Raises:
            DifferentiationError: It cannot be differentiated forwards.
        """

        def build() -> Pushforward:
            with _context(op):
                return pushforward(op, wrt)

        return op.derived.find(("pushforward", wrt), build)

    def transposed(
        self,
        op: TorchOp,
        wrt: tuple[int, ...],
        outs: tuple[int, ...],
        known: Known | None,
    ) -> Linearized:
        """The derivative by inputs in which the function is linear, built at first use.

        Args:
            op: The function.
            wrt: The inputs.
            outs: Results that have a cotangent.
            known: Gives the values of its operands, None for ``wrt`` and where they are not known.
                Instead None: that it is linear has been told, as in a program that was exported.

        Raises:
            DifferentiationError: It is not linear in them, or that cannot be told.
        """

        def build() -> Transposed:
            with _context(op):
                return transpose(op, wrt, outs)

        found = op.derived.find(("transposed", wrt, outs), build)
        if known is not None:
            found.test(known)
        return found.linearized

    def batched(
        self, op: TorchOp, size: int, dims: tuple[int | None, ...], *, loop: bool = False
    ) -> Batched:
        """The op for a whole batch, or why there is none; built at first use.

        Args:
            op: Of one element.
            size: Of the batch.
            dims: For each input its batch axis, or None.
            loop: Call one by one, inside of torch, where one call will not do.
        """

        def build() -> Batched:
            with _context(op):
                return batch(op, size, dims, loop)

        # The first words are those that `explain` asks for; see `Derived.named`.
        return op.derived.find(("batched", size, dims, loop), build)

    def island(self, op: TorchOp, first: int, last: int) -> TorchOp:
        """What runs some steps of ``op.aten``, built at first use; see `islands.island`."""
        return island(op, first, last)

    def verifier(self, op: TorchOp) -> TorchOp:
        """What compares the first run of ``op.aten`` with torch; see `verified_lowering`."""
        return verifier(op)


def _context(op: TorchOp) -> contextlib.AbstractContextManager[None]:
    """Torch's settings under which something new may be captured of the op."""
    if isinstance(op.role, Function):
        # Only such an op has Python code of the user's that torch's settings act on.
        return op.role.fn.context.scope()
    return contextlib.nullcontext()
