"""Torch on XLA's CUDA stream for the length of a call."""

from __future__ import annotations

import functools
import threading

import torch

from ..._compat.torch.cuda_streams import current_stream, current_stream_by, stream_functions
from .native_library import native_library

Token = tuple[torch.cuda.Stream, torch.cuda.Stream, int, bool]


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


class _First:
    """Whether it is the first call of the process."""

    def __init__(self) -> None:
        self._is_over = False

    def now(self) -> bool:
        """Once."""
        first, self._is_over = not self._is_over, True
        return first


_first = _First()


def enter_stream(pointer: int, device: int, ordered: bool) -> Token:
    """Make XLA's stream torch's current one.

    The first call finds the C functions of torch and CUDA by which the handler does the same from
    then on (native_src/stream_scope.cc). Where they are not, it goes on to call this.

    Args:
        pointer: The ``cudaStream_t`` that XLA runs the call on.
        device: CUDA device ordinal of the call.
        ordered: After the work queued on torch's own stream, and before what is queued there later.

    Returns:
        What `leave_stream` needs.
    """
    before = torch.cuda.current_device()
    if before != device:
        torch.cuda.set_device(device)
    own = current_stream(device)
    stream = _stream(pointer, device)
    # An idle stream has nothing to wait for.
    if ordered and own.cuda_stream != pointer and not own.query():
        # An event on one side and a wait on the other; the host goes on.
        event, _ = _events.pair(device)
        event.record(own)
        event.wait(stream)
    direct = stream_functions() if _first.now() else None
    agrees = direct is not None and current_stream_by(direct, device) == own.cuda_stream
    torch.cuda.set_stream(stream)
    # What is found by name has to say what torch says, of both streams.
    if direct is not None and agrees and current_stream_by(direct, device) == pointer:
        native_library().set_stream_functions(direct)
    return own, stream, before, ordered


def leave_stream(token: Token) -> None:
    """Put torch's stream back; where the two are ordered, its later work waits for XLA's."""
    own, stream, before, ordered = token
    if ordered and own.cuda_stream != stream.cuda_stream:
        _, event = _events.pair(stream.device_index)
        event.record(stream)
        event.wait(own)
    torch.cuda.set_stream(own)
    # `set_stream` has made its stream's device the current one.
    if before != torch.cuda.current_device():
        torch.cuda.set_device(before)
