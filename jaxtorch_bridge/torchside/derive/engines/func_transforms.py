"""The engine of ``torch.func``: its jvp and vjp, captured as a graph."""

from __future__ import annotations

from collections.abc import Iterator

from .engine import Goal
from .run_again import RunAgain, Way, forms_without_recording, with_attention


class FuncTransforms(RunAgain):
    """See the module."""

    name = "func"

    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""
        source = goal.source
        # TorchScript, for one, hides from torch.func what it does.
        if not source.derivable_by_graph:
            return "no graph of it can be trusted"
        if source.order and source.inference.own_backwards:
            return "what custom backwards take for constants, torch.func does not show"
        if source.terms.autograd_only:
            return "torch.autograd.grad alone was asked for"
        if source.transform == "autograd":
            return "what autograd differentiates inside, torch.func cannot outside"
        return "" if forms_without_recording(source) else "its writes have to be recorded"

    def ways(self, goal: Goal) -> Iterator[Way]:
        """What to try, the best first."""
        for form in forms_without_recording(goal.source):
            # Forward mode does not heed torch.no_grad, which reverse mode does.
            if goal.kind == "push" and not goal.source.inference.switches_grad:
                yield from with_attention(goal.source, form, "func", False)
            yield from with_attention(goal.source, form, "func", True)
