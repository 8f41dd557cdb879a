"""The engine of ``torch.autograd.grad``: captured as a graph, or recorded anew in each run."""

from __future__ import annotations

from collections.abc import Iterator

from .engine import DerivedFunction, Goal
from .run_again import Way, first_that_works, forms_without_recording, with_attention


class AutogradAgain:
    """See the module. It knows most functions, also those that cannot be evaluated abstractly."""

    name = "autograd"

    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""
        source = goal.source
        if not forms_without_recording(source):
            return "its writes have to be recorded"
        if source.forms and not source.derivable_by_graph:
            return "no graph of it can be trusted"
        return ""

    def build(self, goal: Goal) -> DerivedFunction:
        """The derivative as a function.

        Raises:
            NoWayError: It does not work.
            DifferentiationError: No engine can.
        """
        return first_that_works(goal, self.name, _ways(goal))


def _ways(goal: Goal) -> Iterator[Way]:
    source = goal.source
    if source.derivable_by_graph:
        for form in forms_without_recording(source):
            yield from with_attention(source, form, "autograd", True)
    # Without a graph, writes have to be recorded: that is another engine's.
    if not source.forms:
        yield Way(source.function, "autograd", True, source.plain_attention, opaque=True)
