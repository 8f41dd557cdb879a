"""Arrays on the GPU, and the same numbers as tensors there."""

from __future__ import annotations

import jax
import numpy as np
import torch


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> jax.Array:
    """Standard normal numbers on the first GPU."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return jax.device_put(values, jax.devices("cuda")[0])


def tensor_of(array: jax.Array) -> torch.Tensor:
    """The same numbers, in memory of torch's own."""
    return torch.from_numpy(np.array(array)).cuda()
