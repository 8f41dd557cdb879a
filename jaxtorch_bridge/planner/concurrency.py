"""How calls of one torch function on several devices share what it closes over."""

from __future__ import annotations

from dataclasses import dataclass

from ..choices import ConcurrencyMode
from .output_inference import Inference


@dataclass(frozen=True)
class Concurrency:
    """What was decided.

    Attributes:
        mode: parallel: calls run at the same time. locked: one at a time, and not while those of
            other callables over the same modules run.
        reason: Why, in words.
    """

    mode: ConcurrencyMode = "parallel"
    reason: str = "it changes nothing that it closes over"

    def __str__(self) -> str:
        return f"{self.mode}: {self.reason}"


PARALLEL = Concurrency()


def choose_concurrency(
    asked: ConcurrencyMode | None, inference: Inference, closes_over: str
) -> Concurrency:
    """Decide from what the abstract evaluation saw.

    Args:
        asked: What the contract or the caller asks for; None: the best that is safe.
        inference: What was seen.
        closes_over: Words on what could be changed unseen; empty if there is nothing.
    """
    danger = _danger(inference, closes_over)
    # Who asks is believed; `explain` says what was seen all the same.
    if asked is not None:
        although = f", although {danger}" if danger and asked == "parallel" else ""
        return Concurrency(asked, f"as asked{although}")
    if danger:
        return Concurrency("locked", danger)
    return Concurrency(reason=_harmless(inference, closes_over))


def _danger(inference: Inference, closes_over: str) -> str:
    """What goes wrong if two calls run at the same time; empty if nothing does."""
    if not inference.seen:
        # Unseen is not harmless, and a wrong number is worse than a wait.
        why = "could not be traced abstractly"
        if inference.flags:
            why = "was only traced as code that is compiled"
        if inference.flags == "unchecked":
            why = "was only traced without the checks of torch.distributions"
        return f"it {why} and may change {closes_over}" if closes_over else ""
    if inference.leaves_changed:
        return f"it changes {inference.leaves_changed}"
    if inference.updates_state:
        return "it writes to tensors that it closes over"
    if inference.swaps:
        return f"it swaps {inference.swaps} while it runs"
    return ""


def _harmless(inference: Inference, closes_over: str) -> str:
    if not inference.seen:
        return "it closes over nothing that it could change"
    if closes_over:
        return "it changes nothing that it closes over"
    return "it closes over nothing that can change"
