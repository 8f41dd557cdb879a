"""``torch.utils.checkpoint`` where a gradient is taken. Tried on torch 2.11.0, 2.13.0, 2.14.1."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch.utils.checkpoint as checkpoints


@functools.cache
def without_reentrancy(applies: Callable[[], bool]) -> None:
    """From now on ``use_reentrant=True`` means the other form where ``applies()`` says so.

    The reentrant form calls ``backward`` within its own backward: ``torch.autograd.grad`` refuses
    that, and it adds to the ``grad`` of all leaves that it comes to, which are the user's. Both
    compute the same, but that the other form also finds gradients of weights alone.
    """
    kind: Any = checkpoints.CheckpointFunction
    plain = kind.apply

    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        if not applies():
            return plain(function, preserve, *args)
        return checkpoints.checkpoint(
            function, *args, use_reentrant=False, preserve_rng_state=preserve
        )

    kind.apply = apply
