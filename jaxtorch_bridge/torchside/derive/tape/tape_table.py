"""The tapes that wait for their backward runs: bounded, the oldest out first."""

from __future__ import annotations

import itertools
import os
import threading
import warnings
from collections import Counter
from pathlib import Path

import torch

from ....config import settings
from ....errors import BridgeWarning
from ...handler.gpu_memory import count_as_kept
from .recorded_run import Tape

# A tape of a small function is a few kilobytes of Python and C++ objects, whatever it keeps.
_MOST_TAPES = 16_384
# What nobody could count is taken for this part of what may be held.
_UNCOUNTED = 64
# Of the machine's or the device's memory, where the settings say nothing.
_SHARE = 4
_DEVICE_SHARE = 8
# Backward runs that found no tape, from which on it is worth a word.
_MISSES = 16


class TapeTable:
    """Tapes by their numbers. One for the process: a tape may be used on another thread."""

    def __init__(self) -> None:
        # With what each counts as, and whose it is.
        self._tapes: dict[int, tuple[Tape, int, str]] = {}
        self._bytes: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._newest_dropped = 0
        self._misses = 0
        self._too_large: set[str] = set()

    def put(self, tape: Tape, label: str, key: str = "") -> int:
        """Hold a tape.

        Args:
            tape: What to hold.
            label: The callable's name, for the warning that it is too large.
            key: Of the op that it is a run of, for `held_of`.

        Returns:
            Its number, or 0 if it is more than may be held.
        """
        limit = limit_bytes(tape.device)
        size = limit // _UNCOUNTED if tape.size_bytes is None else tape.size_bytes
        if size > limit or not limit:
            if limit and label not in self._too_large:
                self._too_large.add(label)
                _warn(
                    f"{label}: its backward pass runs the function again, since torch would keep "
                    f"{size} bytes for it",
                    tape.device,
                )
            return 0
        dropped: list[Tape] = []
        with self._lock:
            number = next(self._numbers)
            self._tapes[number] = tape, size, key
            self._bytes[tape.device] += size
            if self._bytes[tape.device] > limit or len(self._tapes) > _MOST_TAPES:
                dropped = self._make_room(tape.device, limit)
        # Outside of the lock: what they hold may run code of the user's when it goes.
        dropped.clear()
        return number

    def _make_room(self, device: str, limit: int) -> list[Tape]:
        found = []
        for number in list(self._tapes):
            crowded = len(self._tapes) > _MOST_TAPES
            if not crowded and self._bytes[device] <= limit:
                break
            if crowded or self._tapes[number][0].device == device:
                self._newest_dropped = number
                found.append(self._forget(number))
        return found

    def _forget(self, number: int) -> Tape:
        tape, size, _ = self._tapes.pop(number)
        self._bytes[tape.device] -= size
        return tape

    def take(self, number: int, label: str) -> Tape | None:
        """The tape, which the table forgets; None if it is not held.

        Args:
            number: Its number.
            label: The callable's name, for the warning that tapes are dropped too early.
        """
        with self._lock:
            if number in self._tapes:
                return self._forget(number)
            self._misses += 0 < number <= self._newest_dropped
            often = self._misses == _MISSES
        if often:
            _warn(
                f"{label}: its backward pass runs the function again, since what torch kept for it "
                "was dropped to make room",
                "cpu",
            )
        return None

    def held(self) -> dict[str, int]:
        """Bytes held, by device."""
        with self._lock:
            return {device: size for device, size in self._bytes.items() if size}

    def held_of(self, key: str) -> tuple[int, int]:
        """Of one op: how many are held, and their bytes."""
        with self._lock:
            sizes = [size for _, size, owner in self._tapes.values() if owner == key]
        return len(sizes), sum(sizes)

    def __len__(self) -> int:
        return len(self._tapes)

    def forget_after_fork(self) -> None:
        """In a child: another thread of the parent may have held the lock, and is not here."""
        self._lock = threading.RLock()
        self.clear()

    def clear(self) -> None:
        """Drop all."""
        with self._lock:
            dropped, self._tapes = self._tapes, {}
            self._bytes.clear()
        dropped.clear()


def _warn(words: str, device: str) -> None:
    warnings.warn(
        f"{words}. Raise jaxtorch_bridge.settings.tape_bytes (now {limit_bytes(device)} on "
        f"`{device}`), or say `residuals: recompute`.",
        BridgeWarning,
        stacklevel=3,
    )


def limit_bytes(device: str) -> int:
    """What may be held on a device: ``settings.tape_bytes``, or a share of its memory."""
    if settings.tape_bytes is not None:
        return settings.tape_bytes
    if device not in _DEFAULTS:
        _DEFAULTS[device] = _default_bytes(device)
    return _DEFAULTS[device]


_DEFAULTS: dict[str, int] = {}


def _default_bytes(device: str) -> int:
    if device.startswith("cuda"):
        # Most of it is XLA's, which takes three quarters when JAX starts.
        return int(torch.cuda.get_device_properties(device).total_memory) // _DEVICE_SHARE
    return memory_bytes() // _SHARE


def memory_bytes() -> int:
    """The machine's memory, or what a container may use of it."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found = min(found, int(Path(name).read_text()))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return found


TAPES = TapeTable()
count_as_kept(TAPES.held)
os.register_at_fork(after_in_child=TAPES.forget_after_fork)
