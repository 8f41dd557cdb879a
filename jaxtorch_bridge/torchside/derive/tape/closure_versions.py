"""Whether what a function closes over is still what it was when it ran."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ...._compat.torch.modules import own_buffers, own_parameters
from ...._compat.torch.tensors import version_of
from ...functions.tensor_function import TensorFunction
from ...inspection.reachable_objects import memory_of

_FACTOR = 1_000_003
_MASK = (1 << 62) - 1


class ClosureVersions:
    """Two numbers that change with a function's surroundings.

    Not by what its own runs write to: they would change between each two of them.
    """

    def __init__(self, fn: TensorFunction) -> None:
        self._closure = fn.closure
        # The tables of its layers, in which a replaced tensor shows; a layer more shows by its
        # training flag.
        self._tables: list[dict[str, Any]] = []
        for part in fn.closure.parts():
            self._tables.append(own_parameters(part))
            # What a function writes to that nobody could watch cannot be told: buffers may be.
            if fn.inference.traced:
                self._tables.append(own_buffers(part))
        self._written = {memory_of(tensor) for tensor in fn.updated}

    def now(self) -> tuple[int, int]:
        """(of tensors: which they are and how often they were written to; of all else)."""
        closure = self._closure
        found: list[torch.Tensor | None] = [*closure.tensors()]
        for table in self._tables:
            found += table.values()
        return self._digest(found), hash(closure.key())

    def _digest(self, tensors: Iterable[torch.Tensor | None]) -> int:
        found = 0
        for tensor in tensors:
            if tensor is not None and not (self._written and memory_of(tensor) in self._written):
                # No sum: two that were exchanged must show.
                found = (found * _FACTOR + (id(tensor) >> 4) + version_of(tensor)) & _MASK
        return found
