"""Torch on XLA's CUDA stream for the length of a call."""

from __future__ import annotations

from typing import Any

import torch

Token = tuple[torch.cuda.Stream, torch.cuda.Stream, int]


def enter_stream(pointer: int, device: int) -> Any:
    """Make XLA's stream torch's current one, after the work queued on torch's own stream.

    Args:
        pointer: The ``cudaStream_t`` that XLA runs the call on.
        device: CUDA device ordinal of the call.

    Returns:
        What `leave_stream` needs.
    """
    before = torch.cuda.current_device()
    torch.cuda.set_device(device)
    own = torch.cuda.current_stream(device)
    stream = torch.cuda.ExternalStream(pointer, device=device)
    if own.cuda_stream != pointer:
        stream.wait_stream(own)  # an event on one side and a wait on the other; the host goes on
    torch.cuda.set_stream(stream)
    return own, stream, before


def leave_stream(token: Any) -> None:
    """Put torch's stream back; its later work waits for what was queued on XLA's."""
    own, stream, before = token
    if own.cuda_stream != stream.cuda_stream:
        own.wait_stream(stream)
    torch.cuda.set_stream(own)
    torch.cuda.set_device(before)
