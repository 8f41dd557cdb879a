"""Fake tensors that a function has put somewhere while it was evaluated, taken out again."""

from __future__ import annotations

import gc
import types
import weakref
from collections.abc import Iterable
from typing import Any

import torch

from ..closure.garbage import is_still
from ..inspection.careful_access import is_a, own_attributes, present_attribute, stored_items
from ..inspection.deep_contents import DeepContents

# From a fake to what holds what holds it: tuples, entries of caches.
_STEPS = 4


def alive(made: Iterable[weakref.ref[torch.Tensor]]) -> list[torch.Tensor]:
    """The fakes that somebody keeps."""
    made = list(made)
    if not is_still(lambda: any(one() is not None for one in made)):
        return []
    return [fake for fake in (one() for one in made) if fake is not None]


def take_back(made: Iterable[weakref.ref[torch.Tensor]], before: DeepContents) -> bool:
    """Take fakes out of what holds them.

    Args:
        made: All that were made.
        before: What was held before that.

    Returns:
        Whether all is as it was before. If not, they were taken from who holds them, as far as
        that can be: what was there before them is not known.
    """
    made = list(made)
    before.take_fakes_back()
    left = alive(made)
    if not left:
        return True
    _take_out(left)
    return False


def _take_out(left: list[torch.Tensor]) -> None:
    targets: list[Any] = list(left)
    # What this function itself holds them by.
    own = {id(left), id(targets)}
    for _ in range(_STEPS):
        if not targets:
            return
        wanted = set(map(id, targets))
        holders = [
            holder
            for holder in gc.get_referrers(*targets)
            if id(holder) not in own and not is_a(holder, types.FrameType)
        ]
        own.add(id(holders))
        # Who cannot let go of them must be let go of.
        targets = [holder for holder in holders if not _let_go(holder, wanted)]
        own.add(id(targets))


def _let_go(holder: Any, wanted: set[int]) -> bool:
    """Whether a holder could be made to drop these."""
    if present_attribute(holder, "cache_clear") and present_attribute(holder, "cache_info"):
        holder.cache_clear()
        return True
    if is_a(holder, types.CellType):
        holder.cell_contents = None
        return True
    if is_a(holder, list):
        holder[:] = [item for item in holder if id(item) not in wanted]
        return True
    table = holder if is_a(holder, dict) else own_attributes(holder)
    if table is None or is_a(holder, torch.Tensor):
        return False
    keys = [key for key, value in stored_items(table) if id(value) in wanted]
    for key in keys:
        table.pop(key, None)
    return bool(keys)
