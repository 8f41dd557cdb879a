"""The engine of ``torch.autograd.grad``: captured as a graph, or recorded anew in each run."""

from __future__ import annotations

from collections.abc import Iterator

from .engine import Goal
from .run_again import RunAgain, Way, cores_without_recording, with_attention


class AutogradAgain(RunAgain):
    """See the module. It knows most functions, also those that cannot be evaluated abstractly."""

    name = "autograd"

    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""
        fn = goal.fn
        if not cores_without_recording(fn):
            return "its writes have to be recorded"
        if fn.stand_ins and not fn.derivable_by_graph:
            return "no graph of it can be trusted"
        return ""

    def ways(self, goal: Goal) -> Iterator[Way]:
        """What to try, the best first."""
        fn = goal.fn
        if fn.derivable_by_graph and not goal.told_by_runs:
            for core in cores_without_recording(fn):
                # `backwards`, here and below: `torch.autograd.grad` has no other mode.
                yield from with_attention(fn, core, "autograd", True)
        # Without a graph, writes have to be recorded: that is another engine's.
        if not fn.stand_ins:
            yield Way(fn.core, "autograd", True, fn.plain_attention, opaque=True)
