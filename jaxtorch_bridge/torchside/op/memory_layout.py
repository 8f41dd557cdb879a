"""Questions on how tensors lie in memory."""

from __future__ import annotations

import math
import operator

import torch


def fills_its_memory(value: torch.Tensor) -> bool:
    """Whether the elements follow each other without gaps, in any order of the axes."""
    if value.storage_offset() != 0:
        return False
    step = 1
    for size, stride in sorted(
        zip(value.shape, value.stride(), strict=True), key=operator.itemgetter(1)
    ):
        # An axis of length 1 may have any stride.
        if size != 1:
            if stride != step:
                return False
            step *= size
    return step == math.prod(value.shape)
