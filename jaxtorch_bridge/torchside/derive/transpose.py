"""The transpose of a function that is linear in some inputs: its pullback, which is one everywhere.

Not by a tape. Of a linear function the pullback is evaluated at 0, where nobody has run it, and a
captured one does not run the function at all.
"""

from __future__ import annotations

from ...errors import DifferentiationError
from ..closure.closure_guard import ClosureGuard
from ..op.torch_op import TorchOp
from .derived_function import derive
from .engines.engine import Goal
from .linear_part import Linearized
from .linearity import Known, doubt_of, test_by_numbers
from .refusals import differentiable_function
from .refused_outputs import refused_outputs


class Transposed:
    """The derivative of a function by inputs in which it is linear.

    Attributes:
        linearized: The derivative.
        doubt: Why numbers have to tell that it is linear; empty if its operations do.
    """

    def __init__(self, op: TorchOp, linearized: Linearized, doubt: str) -> None:
        self.linearized = linearized
        self.doubt = doubt
        self._op = op
        # Without other operands there is nothing that a later call could do differently.
        self._once = len(linearized.wrt) == len(op.inputs)
        self._tested = not doubt

    @property
    def fresh(self) -> bool:
        """Whether the function's surroundings are still those that were looked at."""
        return self.linearized.fresh

    @property
    def words(self) -> tuple[str, ...]:
        """Lines for `explain`."""
        how = f"tested with numbers: {self.doubt}" if self.doubt else "told by its operations"
        first, *rest = self.linearized.words
        return (f"transposed, {first}; linear, {how}", *rest)

    def test(self, known: Known) -> None:
        """Test with numbers, where nothing else has told that it is linear.

        Args:
            known: See `test_by_numbers`.

        Raises:
            DifferentiationError: It is not, or that cannot be told.
        """
        if self._tested:
            return
        found = self.linearized
        wrt, outs = found.wrt, found.diff_outputs
        run, pull = self._op.program.run, found.function(True, wrt, outs).op.program.run
        test_by_numbers(found.fn, wrt, outs, self.doubt, known, run, pull)
        self._tested = self._once


def transpose(op: TorchOp, wrt: tuple[int, ...], outs: tuple[int, ...]) -> Transposed:
    """The transpose by the inputs ``wrt`` of the results ``outs``.

    Raises:
        DifferentiationError: The function is not linear in them, or cannot be differentiated.
    """
    for sig in (*(op.inputs[index] for index in wrt), *(op.outputs[index] for index in outs)):
        if not sig.differentiable:
            raise DifferentiationError(
                f"{op.label}: cannot transpose: expected `{sig.path}` to have a derivative; it is "
                f"{sig.dtype}, or declared to have none. Pass and return floats, or leave it out "
                "of what is transposed."
            )
    fn = differentiable_function(op, wrt)
    guard = ClosureGuard(fn.closure)
    refused = refused_outputs(fn, wrt)
    for index in outs:
        if index in refused:
            raise DifferentiationError(refused[index])
    doubt = doubt_of(fn, wrt, outs)
    # Not the seeds of a forward run, which there is none of.
    again = derive(Goal(fn, "pull", wrt, outs, fn.seeds))
    found = Linearized(
        op,
        fn,
        wrt,
        guard,
        again=again,
        diff_outputs=outs,
        failures=again.failures,
        repeats=False,
        way="transposed",
    )
    return Transposed(op, found, doubt)
