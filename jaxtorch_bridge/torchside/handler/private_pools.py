"""Memory of its own for what torch allocates while XLA records a call into a command buffer."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

Token = AbstractContextManager[None] | None


def enter_pool(pools: dict[int, torch.cuda.MemPool], device: int) -> Token:
    """Have torch allocate from a pool that nobody else takes from, if XLA is recording.

    What is recorded runs again later, with the same addresses: memory that torch would hand to
    somebody else meanwhile would be overwritten. When XLA calls without recording, torch allocates
    as ever.

    Args:
        pools: Of one call in one executable, by device; a missing one is made.
        device: CUDA device ordinal of the call, torch's current one.

    Returns:
        What `leave_pool` needs.
    """
    if not torch.cuda.is_current_stream_capturing():
        return None
    pool = pools.get(device)
    if pool is None:
        pool = pools[device] = torch.cuda.MemPool()
    scope: AbstractContextManager[None] = torch.cuda.use_mem_pool(pool, device)
    scope.__enter__()
    return scope


def leave_pool(token: Token) -> None:
    """Back to where torch allocated before."""
    if token is not None:
        token.__exit__(None, None, None)
