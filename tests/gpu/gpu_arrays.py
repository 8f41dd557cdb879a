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


def same(found: object, expected: object, **tolerance: float) -> None:
    """Compare trees of arrays and of tensors leaf by leaf."""
    ours, theirs = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if isinstance(other, torch.Tensor):
            other = other.detach().cpu().numpy()
        np.testing.assert_allclose(one, other, **{"rtol": 1e-5, "atol": 1e-6, **tolerance})
