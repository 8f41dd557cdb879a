"""Who holds the memory of a GPU, for the message of an error for want of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

_GIB = 1 << 30
# By what is kept between forward and backward passes, by device; those who keep it stand above.
_kept: list[Callable[[], Mapping[str, int]]] = []


def count_as_kept(held: Callable[[], Mapping[str, int]]) -> None:
    """Have messages tell of what else keeps torch's memory: bytes by device."""
    _kept.append(held)


def memory_words() -> str:
    """A line for each GPU in use: what torch holds, what is free, and what is left for others.

    Empty where torch uses no GPU.
    """
    if not torch.cuda.is_initialized():
        return ""
    return "".join(f"{_words(index)}\n" for index in range(torch.cuda.device_count()))


def _words(index: int) -> str:
    free, total = torch.cuda.mem_get_info(index)
    taken, used = torch.cuda.memory_reserved(index), torch.cuda.memory_allocated(index)
    device = f"cuda:{index}"
    kept = sum(held().get(device, 0) for held in _kept)
    # CUDA knows no owners. Of torch's own context nobody says how much it takes.
    others = max(total - free - taken, 0)
    return (
        f"{device} has {_size(total)}: torch took {_size(taken)}, of which tensors use "
        f"{_size(used)} ({_size(kept)} kept for backward passes); {_size(others)} are JAX's, "
        f"other processes' and CUDA's own; {_size(free)} are free."
    )


def _size(count: int) -> str:
    return f"{count / _GIB:.2f} GiB"
