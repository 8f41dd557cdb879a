"""The engine of ``torch.func``: its jvp and vjp, captured as a graph."""

from __future__ import annotations

from collections.abc import Iterator

from .engine import Goal
from .run_again import RunAgain, Way, cores_without_recording, with_attention


class FuncTransforms(RunAgain):
    """See the module."""

    name = "func"

    def objection(self, goal: Goal) -> str:
        """Why it cannot reach the goal, told without trying; empty if it may."""
        fn = goal.fn
        # TorchScript, for one, hides from torch.func what it does.
        if not fn.derivable_by_graph:
            return "no graph of it can be trusted"
        if goal.told_by_runs:
            return "hooks, or backwards of its own, may be no linear maps, which only runs show"
        if fn.order and fn.inference.own_backwards:
            return "what custom backwards take for constants, torch.func does not show"
        if fn.terms.autograd_only:
            return "torch.autograd.grad alone was asked for"
        if fn.transform == "autograd":
            return "what autograd differentiates inside, torch.func cannot outside"
        return "" if cores_without_recording(fn) else "its writes have to be recorded"

    def ways(self, goal: Goal) -> Iterator[Way]:
        """What to try, the best first."""
        for core in cores_without_recording(goal.fn):
            # Forward mode does not heed torch.no_grad, which reverse mode does.
            if goal.kind == "push" and not goal.fn.inference.switches_grad:
                yield from with_attention(goal.fn, core, "func", False)
            yield from with_attention(goal.fn, core, "func", True)
