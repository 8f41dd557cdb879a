"""What torch keeps between forward and backward passes, and how much it may keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .checks import Check, fine, note, problem

_MIB = 1 << 20


@dataclass(frozen=True)
class TapesSeen:
    """Tapes on one device.

    Attributes:
        device: ``cpu``, or a GPU as torch names it.
        held_bytes: What is kept now.
        limit_bytes: The most that will be kept.
        memory_bytes: All that the device has.
    """

    device: str
    held_bytes: int
    limit_bytes: int
    memory_bytes: int


def tapes_here() -> tuple[TapesSeen, ...]:
    """The tapes of this process."""
    import torch

    from ...torchside.derive.tape.tape_table import TAPES, limit_bytes, memory_bytes

    memory = {"cpu": memory_bytes()}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory[f"cuda:{index}"] = torch.cuda.get_device_properties(index).total_memory
    held = TAPES.held()
    return tuple(
        TapesSeen(device, held.get(device, 0), limit_bytes(device), size)
        for device, size in memory.items()
    )


def examine_tapes(seen: Sequence[TapesSeen], setting: int | None) -> Iterator[Check]:
    """Compare what may be kept with the memory there is.

    Args:
        seen: One for each device.
        setting: ``settings.tape_bytes``.
    """
    if setting == 0:
        words = "settings.tape_bytes is 0: nothing is kept, backward passes run functions again"
        yield note("tapes", words)
        return
    source = "its share, as settings.tape_bytes is None" if setting is None else "as set"
    for one in seen:
        yield fine(
            "tapes",
            f"{one.device}: {_size(one.held_bytes)} kept for backward passes, of at most "
            f"{_size(one.limit_bytes)} ({source})",
        )
        if one.limit_bytes > one.memory_bytes:
            text = (
                f"{one.device}: {_size(one.limit_bytes)} may be kept for backward passes, of "
                f"{_size(one.memory_bytes)} of memory"
            )
            yield problem("tapes", text, "Lower jaxtorch_bridge.settings.tape_bytes")


def _size(count: int) -> str:
    return f"{count} bytes" if count < _MIB else f"{count / _MIB:.0f} MiB"
