"""Which of torch's two sets of rules a batch of cotangents goes back through a record by.

``is_grads_batched`` goes by torch's older ``vmap``, which has few rules and takes several times as
long as ``torch.func.vmap``. That has a rule for nearly every operation, a wrong one among them:
of `torch.cdist` it gives each element of the batch the first one's cotangent (torch 2.13.0).
So the newer rules are taken where they were seen to give what the older ones give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ...functions.compare_results import difference

Cotangents = Sequence["torch.Tensor | None"]
# More ways that code went than a function has.
_MOST = 256


@dataclass
class BatchRules:
    """Of one pullback: for which records the newer rules were right."""

    _right: dict[tuple[str, ...], bool] = field(default_factory=dict)

    def go_back(
        self,
        operations: tuple[str, ...],
        cotangents: Sequence[torch.Tensor],
        pull: Callable[[bool], Cotangents],
    ) -> Cotangents:
        """What a batch of cotangents goes back to.

        Args:
            operations: What the record consists of.
            cotangents: With the batch in front.
            pull: Goes back, by the newer rules or by the older ones.
        """
        if self._right.get(operations):
            return pull(True)
        found = pull(False)
        # If all are alike, a rule that takes the first for all looks right.
        if operations not in self._right and any(not _is_one(each) for each in cotangents):
            if len(self._right) >= _MOST:
                self._right.clear()
            self._right[operations] = _gives(lambda: pull(True), found)
        return found


def _is_one(batch: torch.Tensor) -> bool:
    return torch.equal(batch, batch[:1].expand_as(batch))


def _gives(pull: Callable[[], Cotangents], wanted: Cotangents) -> bool:
    try:
        found = pull()
    except Exception:  # of operations without a rule, of hooks that look at values
        return False
    return all(
        one is other is None if one is None or other is None else difference(one, other) is None
        for one, other in zip(found, wanted, strict=True)
    )
