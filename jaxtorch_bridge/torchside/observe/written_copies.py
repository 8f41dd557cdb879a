"""Whether copies of tensors are what they were copied from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..._compat.torch.tensors import version_of


def written_copies(originals: Sequence[torch.Tensor], copies: Sequence[torch.Tensor]) -> set[int]:
    """Which copies a run has written to, by version and by content."""
    found = set()
    for index, (original, copy) in enumerate(zip(originals, copies, strict=True)):
        same_bytes = copy.shape == original.shape and torch.equal(_bytes(copy), _bytes(original))
        if not same_bytes or version_of(copy) > 0:
            found.add(index)
    return found


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    # NaN is equal to itself here, and float8 has no comparison of its own.
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
