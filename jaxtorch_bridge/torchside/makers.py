"""Which ATen op of a function made each of its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .._compat import torch_internals as compat
from .layout import fills_its_memory


@dataclass(frozen=True)
class Maker:
    """The op that makes a result's memory.

    Attributes:
        number: Of the op among those that the function runs, from 0.
        op: The ATen overload.
        shape: Of what the op returns.
        stride: Likewise; the result may be a view that covers all of it.
    """

    number: int
    op: Any
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Makers:
    """Counts a function's ops while it is watched, and remembers who made which memory."""

    def __init__(self) -> None:
        self.count = 0
        self._made: dict[int, tuple[Maker, torch.Tensor]] = {}

    def note(self, op: Any, result: Any) -> None:
        """Take in the next op."""
        if type(result) is not tuple and isinstance(result, torch.Tensor) and result.numel():
            maker = Maker(self.count, op, tuple(result.shape), tuple(result.stride()))
            # Views and writes in place return memory that somebody made before. The tensor is
            # held so that no later one gets the same memory.
            self._made.setdefault(_memory(result), (maker, result))
        self.count += 1

    def of(self, leaves: Sequence[Any]) -> tuple[Maker | None, ...]:
        """For each result its maker; None if it is not known or made more than the result."""
        found: list[Maker | None] = []
        for leaf in leaves:
            maker, made = self._made.get(_memory(leaf), (None, None))
            taken = any(other is maker for other in found)
            found.append(None if taken or not _covers(leaf, made) else maker)
        return tuple(found)


def _memory(tensor: Any) -> int:
    if not isinstance(tensor, torch.Tensor):
        return 0
    try:
        return compat.storage_key(tensor)
    except (RuntimeError, NotImplementedError):  # sparse and the like
        return 0


def _covers(leaf: torch.Tensor, made: torch.Tensor | None) -> bool:
    """Whether a result is all of what the op made, row-major."""
    return (
        made is not None
        and leaf.dtype == made.dtype
        and leaf.numel() == made.numel()
        and leaf.storage_offset() == 0
        and leaf.is_contiguous()
        and fills_its_memory(made)
    )
