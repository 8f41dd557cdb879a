"""Which of torch's two sets of rules a batch of cotangents goes back through a record by.

``is_grads_batched`` goes by torch's older ``vmap``, which has few rules and takes several times as
long as ``torch.func.vmap``. That has a rule for nearly every operation, a wrong one among them:
of `torch.cdist` it gives each element of the batch the first one's cotangent (torch 2.13.0). So the
newer rules are taken where each operation of the record, by itself and of random cotangents, was
seen to give what it gives of one after the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ...._compat.torch.autograd_graph import gradients_taken, name_of, run_node, variable_of
from ...._compat.torch.func_transforms import batch_level, unwarned_fallbacks
from ...functions.compare_results import difference

# More kinds of operations, of some shapes each, than a function has.
_MOST = 4096
_BATCH = 3


@dataclass
class BatchRules:
    """Of one pullback: for which operations the newer rules were right."""

    _right: dict[Hashable, bool] = field(default_factory=dict)

    def newer(self, nodes: Sequence[Any]) -> bool:
        """Whether they are known to be right for all that a record goes through."""
        return all(self._right.get(_kind_of(node), False) for node in nodes)

    def try_out(self, nodes: Sequence[Any]) -> None:
        """Find out more, where what autograd has saved can be read."""
        if len(self._right) >= _MOST:
            self._right.clear()
        for node in nodes:
            kind = _kind_of(node)
            if kind not in self._right:
                right = _is_right(node)
                if right is not None:
                    self._right[kind] = right


def _kind_of(node: Any) -> Hashable:
    return name_of(node), tuple(shape for shape, _, _ in gradients_taken(node))


def _is_right(node: Any) -> bool | None:
    """None: of what the operation was given here, everything has the same gradient."""
    if variable_of(node) is not None:
        return True
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn((_BATCH, *shape), generator=generator, dtype=dtype).to(device)
        for shape, dtype, device in gradients_taken(node)
    ]
    try:
        with torch.no_grad(), unwarned_fallbacks():
            columns = zip(*(run_node(node, each) for each in zip(*given, strict=True)), strict=True)
            with batch_level(_BATCH) as level:
                batched = run_node(node, [level.enter(one) for one in given])
                found = [None if one is None else level.leave(one) for one in batched]
        told = [_agree(one, column) for one, column in zip(found, columns, strict=True)]
    except Exception:  # of operations without a rule, or that look at values
        return False
    if False in told:
        return False
    return None if None in told else True


def _agree(found: torch.Tensor | None, column: Sequence[torch.Tensor | None]) -> bool | None:
    rows = [one for one in column if one is not None]
    if found is None or len(rows) < len(column):
        return found is None and not rows
    wanted = torch.stack([one.to_dense() if one.is_sparse else one for one in rows])
    if difference(found, wanted) is not None:
        return False
    tells = not wanted.numel() or not torch.equal(wanted, wanted[:1].expand_as(wanted))
    return True if tells else None
