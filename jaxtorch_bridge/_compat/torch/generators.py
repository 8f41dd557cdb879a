"""Torch's generators, and the layout of the CPU's state.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

# The blob of `torch.Generator.get_state`: the seed it was given, two counters and a position, the
# 624 words of a Mersenne Twister (32 bits each, in 64), and normal numbers kept for the next call.
_WORDS = 624
_SIZE = 5056
_SEED = slice(0, 8)
_STATE = slice(24, 24 + 8 * _WORDS)
_PROBE = 0x1234_5678


def mersenne_state(seed: int, words: Any) -> torch.Tensor:
    """The state of a CPU generator that holds these words and has drawn nothing yet.

    ``manual_seed`` reads 32 bits of a seed only, which is too little to tell many keys apart.

    Args:
        seed: 64 bits; what ``initial_seed`` is to answer.
        words: uint32[624], not all of them zero.
    """
    blob = _fresh_blob().copy()  # the cached one stays as it is
    blob[_SEED].view(np.uint64)[0] = seed
    blob[_STATE].view(np.uint64)[:] = words
    return torch.from_numpy(blob)


@functools.cache
def _fresh_blob() -> Any:
    """The state after ``manual_seed``, once it is clear that its layout is the known one.

    Raises:
        RuntimeError: It is another.
    """
    blob = torch.Generator().manual_seed(_PROBE).get_state().numpy()
    if blob.size == _SIZE and blob[_SEED].view(np.uint64)[0] == _PROBE:
        words = [int(word) for word in blob[_STATE].view(np.uint64)]
        expected = _PROBE
        for index, word in enumerate(words):
            if word != expected:
                break
            # How a Mersenne Twister makes its words of a seed (Matsumoto and Nishimura, 2002).
            expected = 1812433253 * (expected ^ expected >> 30) + index + 1 & 0xFFFF_FFFF
        else:
            return blob
    raise RuntimeError(
        f"torch {torch.__version__} keeps the state of its CPU generator in a layout that is not "
        "known here, so that it cannot be seeded from a JAX key."
    )


def generator_key(generator: torch.Generator) -> int:
    """Equal for one generator, of which torch makes a new object each time it hands it out."""
    return int(generator._cdata)  # type: ignore[attr-defined]


def global_generator_state() -> bytes:
    """The state of torch's CPU generator, also where operations are watched or faked."""
    from torch.utils._python_dispatch import _disable_current_modes

    # A fake mode would make a fake of it, which has no bytes.
    with _disable_current_modes():
        return torch.get_rng_state().numpy().tobytes()
