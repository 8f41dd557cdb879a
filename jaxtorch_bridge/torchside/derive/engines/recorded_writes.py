"""The engine for functions that write to their arguments: autograd records the writes to copies.

For what cannot be functionalized, and for what cannot be traced; see `functions.declared_writes`.
"""

from __future__ import annotations

from collections.abc import Iterator

from .engine import Goal
from .run_again import RunAgain, Way, with_attention


class RecordedWrites(RunAgain):
    """See the module."""

    name = "recorded writes"

    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""
        return "" if goal.source.forms else "it writes to no argument"

    def ways(self, goal: Goal) -> Iterator[Way]:
        """What to try, the best first."""
        # The last form is the one in which autograd records; see `Source.forms`.
        source, form = goal.source, goal.source.forms[-1]
        remark = " (writing to copies)" if source.forms[:-1] else ""
        if source.derivable_by_graph:
            if not source.terms.autograd_only and source.transform != "autograd":
                if goal.kind == "push" and not source.inference.switches_grad:
                    yield from with_attention(source, form, "func", False, remark)
                yield from with_attention(source, form, "func", True, remark)
            yield from with_attention(source, form, "autograd", True, remark)
        yield Way(form, "autograd", True, source.plain_attention, True, remark)
