"""Torch on XLA's CUDA stream for the length of a call."""

from __future__ import annotations

import functools
import threading
from typing import Any

import torch

from ..._compat.torch.cuda_streams import current_stream

Token = tuple[torch.cuda.Stream, torch.cuda.Stream, int]


class _Events(threading.local):
    """One pair of events for each device: recorded and waited for in one go, so free again."""

    def __init__(self) -> None:
        self._pairs: dict[int, tuple[torch.cuda.Event, torch.cuda.Event]] = {}

    def pair(self, device: int) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        found = self._pairs.get(device)
        if found is None:
            found = torch.cuda.Event(), torch.cuda.Event()
            self._pairs[device] = found
        return found


_events = _Events()


@functools.lru_cache(maxsize=256)
def _stream(pointer: int, device: int) -> torch.cuda.Stream:
    # It is no more than a name for the stream, so it may outlive it.
    return torch.cuda.ExternalStream(pointer, device=device)


def enter_stream(pointer: int, device: int) -> Any:
    """Make XLA's stream torch's current one, after the work queued on torch's own stream.

    Args:
        pointer: The ``cudaStream_t`` that XLA runs the call on.
        device: CUDA device ordinal of the call.

    Returns:
        What `leave_stream` needs.
    """
    before = torch.cuda.current_device()
    if before != device:
        torch.cuda.set_device(device)
    own = current_stream(device)
    stream = _stream(pointer, device)
    # An idle stream has nothing to wait for.
    if own.cuda_stream != pointer and not own.query():
        # An event on one side and a wait on the other; the host goes on.
        event, _ = _events.pair(device)
        event.record(own)
        event.wait(stream)
    torch.cuda.set_stream(stream)
    return own, stream, before


def leave_stream(token: Any) -> None:
    """Put torch's stream back; its later work waits for what was queued on XLA's."""
    own, stream, before = token
    if own.cuda_stream != stream.cuda_stream:
        _, event = _events.pair(stream.device_index)
        event.record(stream)
        event.wait(own)
    torch.cuda.set_stream(own)
    # `set_stream` has made its stream's device the current one.
    if before != torch.cuda.current_device():
        torch.cuda.set_device(before)
