"""Arguments to try a function on that looks at values nobody knows yet.

In the order in which code that people write accepts them: scales are positive, probabilities lie in
(0, 1], matrices to be factorized are identities, indices are in range, masks select something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...planner.array_signature import ArraySig

Fill = Callable[[tuple[int, ...]], torch.Tensor]


def _increasing(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.arange(torch.Size(shape).numel()).reshape(shape) + 0.5


def _increasing_to_one(shape: tuple[int, ...]) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return (torch.arange(1, count + 1) / max(count, 1)).reshape(shape)


def _one_hot(shape: tuple[int, ...]) -> torch.Tensor:
    made = torch.zeros(shape)
    if shape and made.numel():
        made[..., 0] = 1
    return made


def _identity(shape: tuple[int, ...]) -> torch.Tensor:
    if len(shape) < 2:
        return torch.ones(shape)
    return torch.eye(shape[-2], shape[-1]).expand(shape)


# Integers are what is left of these without fractions: mostly noughts and ones, which most indices
# may be.
_SETS: dict[str, Fill] = {
    "ones": torch.ones,
    "increasing numbers": _increasing,
    "increasing numbers up to one": _increasing_to_one,
    "halves": lambda shape: torch.full(shape, 0.5),
    "one-hot vectors": _one_hot,
    "identity matrices": _identity,
    "zeros": torch.zeros,
}


def made_up(inputs: Sequence[ArraySig]) -> dict[str, list[torch.Tensor]]:
    """Sets of values for these inputs, by what they are called."""
    return {
        name: [fill(sig.shape).to(getattr(torch, sig.torch_dtype)) for sig in inputs]
        for name, fill in _SETS.items()
    }
