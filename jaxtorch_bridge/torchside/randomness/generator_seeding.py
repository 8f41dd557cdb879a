"""Torch's generators, seeded from a JAX key for the length of a call.

A call with a key draws the same wherever and however often it runs, so the key is all that
derivatives need to draw again what was drawn.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..._compat.torch.generators import mersenne_state

_MASK = 0xFFFF_FFFF_FFFF_FFFF
# SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): the
# usual way to fill a large state from a small seed.
_GAMMA = 0x9E37_79B9_7F4A_7C15
# 312 words of 64 bits are the 624 of 32 that torch's generator holds; uint64 wraps around, as
# SplitMix64 asks for.
_STEPS = np.arange(1, 313, dtype=np.uint64) * np.uint64(_GAMMA)


@contextlib.contextmanager
def drawing_from_key(key: torch.Tensor) -> Iterator[None]:
    """Draw what follows from a key, and leave torch's generators as they were.

    Args:
        key: Its words, uint32.
    """
    before = torch.get_rng_state()
    cuda_before = torch.cuda.get_rng_state() if key.is_cuda else None
    # On a GPU this waits for the key.
    seed = seed_of(key.tolist())
    torch.set_rng_state(_cpu_state(seed))
    if key.is_cuda:
        # CUDA's generator reads all 64 bits of a seed.
        torch.cuda.manual_seed(_mixed(seed))
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if cuda_before is not None:
            torch.cuda.set_rng_state(cuda_before)


def with_key(run: Callable[..., Any], count: int) -> Callable[..., Any]:
    """A function as one that takes the words of a key behind its first ``count`` tensors."""

    def seed_and_run(*tensors: torch.Tensor) -> Any:
        with drawing_from_key(tensors[count]):
            return run(*tensors[:count], *tensors[count + 1 :])

    return seed_and_run


def seed_of(words: Sequence[int]) -> int:
    """64 bits from the 32-bit words of a key; two words lose nothing."""
    seed = 0
    for high, low in zip(words[::2], words[1::2], strict=True):
        seed = _mixed(seed ^ (high << 32 | low))
    return seed


def _cpu_state(seed: int) -> torch.Tensor:
    """A state of torch's CPU generator that all 64 bits have a part in."""
    words = _STEPS + np.uint64(seed)
    words ^= words >> np.uint64(30)
    words *= np.uint64(0xBF58_476D_1CE4_E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D0_49BB_1331_11EB)
    words ^= words >> np.uint64(31)
    # Little-endian on every machine, so that one key means the same everywhere.
    return mersenne_state(seed, words.astype("<u8").view("<u4"))


def _mixed(word: int) -> int:
    """One step of SplitMix64; one to one."""
    word = (word + _GAMMA) & _MASK
    word = (word ^ word >> 30) * 0xBF58_476D_1CE4_E5B9 & _MASK
    word = (word ^ word >> 27) * 0x94D0_49BB_1331_11EB & _MASK
    return word ^ word >> 31
