"""The engine of ``torch.autograd.grad``: captured as a graph, or recorded anew in each run."""

from __future__ import annotations

from collections.abc import Iterator

from .engine import Goal
from .run_again import RunAgain, Way, forms_without_recording, with_attention


class AutogradAgain(RunAgain):
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

    def ways(self, goal: Goal) -> Iterator[Way]:
        """What to try, the best first."""
        source = goal.source
        if source.derivable_by_graph:
            for form in forms_without_recording(source):
                # `backwards`, here and below: `torch.autograd.grad` has no other mode.
                yield from with_attention(source, form, "autograd", True)
        # Without a graph, writes have to be recorded: that is another engine's.
        if not source.forms:
            yield Way(source.function, "autograd", True, source.plain_attention, opaque=True)
