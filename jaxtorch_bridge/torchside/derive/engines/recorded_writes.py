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
        return "" if goal.fn.stand_ins else "it writes to no argument"

    def ways(self, goal: Goal) -> Iterator[Way]:
        """What to try, the best first."""
        # In the last one autograd records; see `TensorFunction.stand_ins`.
        fn, core = goal.fn, goal.fn.stand_ins[-1]
        remark = " (writing to copies)" if fn.stand_ins[:-1] else ""
        if fn.derivable_by_graph:
            if not fn.terms.autograd_only and fn.transform != "autograd":
                if goal.kind == "push" and not fn.inference.switches_grad:
                    yield from with_attention(fn, core, "func", False, remark)
                yield from with_attention(fn, core, "func", True, remark)
            yield from with_attention(fn, core, "autograd", True, remark)
        yield Way(core, "autograd", True, fn.plain_attention, True, remark)
