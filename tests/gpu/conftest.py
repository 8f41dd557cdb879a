"""GPU tests are run by `make gpu-check`; without a CUDA device they skip."""

from __future__ import annotations

import jax
import pytest
import torch


@pytest.fixture(autouse=True)
def gpu():
    """The first GPU, as JAX and as torch see it."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    try:
        return jax.devices("cuda")[0]
    except RuntimeError:
        pytest.skip("JAX sees no CUDA device")
