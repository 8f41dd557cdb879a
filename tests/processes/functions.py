"""Torch functions of the workers. One process of a run does not import this module."""

from __future__ import annotations

import torch

from jaxtorch_bridge import jax_callable


@jax_callable
def scaled_sine(x):
    return torch.sin(x) * 2
