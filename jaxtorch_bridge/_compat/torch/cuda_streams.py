"""Torch's current CUDA stream, cheaply. Tried on torch 2.11.0 with CUDA 13.0."""

from __future__ import annotations

import functools

import torch


def current_stream(device: int) -> torch.cuda.Stream:
    """As `torch.cuda.current_stream`, which makes an object each time."""
    return _stream(*torch._C._cuda_getCurrentStream(device))


@functools.lru_cache(maxsize=256)
def _stream(stream: int, device: int, kind: int) -> torch.cuda.Stream:
    found: torch.cuda.Stream = torch.cuda.Stream(
        stream_id=stream, device_index=device, device_type=kind
    )
    return found
