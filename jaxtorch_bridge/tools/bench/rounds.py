"""Time several calls side by side, so that noise falls on all of them alike."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Call = Callable[[], Any]

# Short calls are timed many at once: a clock and a wait around each would count too much.
_SAMPLE_SECONDS = 2e-3
_MOST_CALLS = 200
# Of any call, however long it takes.
_FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class Times:
    """Of one call.

    Attributes:
        median_us: Microseconds.
        spread: Of the middle half of all samples, relative to the median.
    """

    median_us: float
    spread: float


def timed(
    calls: Mapping[str, Call], *, seconds: float, told: Callable[[float], None]
) -> dict[str, Times]:
    """Time calls that return when they are done.

    Args:
        calls: By name. Each runs once in a round, in an order of the round's own.
        seconds: For all of them together; less than five rounds are never made.
        told: Is given the share of the time that has passed.
    """
    counts = {name: _calls_a_sample(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        begin, rounds = time.perf_counter(), 0
        while rounds < _FEWEST_ROUNDS or time.perf_counter() < begin + seconds:
            shuffle(order)
            for name in order:
                samples[name].append(_sample(calls[name], counts[name]))
            rounds += 1
            passed = (time.perf_counter() - begin) / seconds if seconds else 1.0
            told(min(1.0, passed, rounds / _FEWEST_ROUNDS))
    finally:
        if enabled:
            gc.enable()
    return {name: _times(found) for name, found in samples.items()}


def _calls_a_sample(call: Call) -> int:
    call()
    took = _sample(call, 1) / 1e6
    return max(1, min(_MOST_CALLS, int(_SAMPLE_SECONDS / max(took, 1e-9))))


def _sample(call: Call, count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count * 1e6


def _times(samples: list[float]) -> Times:
    median = statistics.median(samples)
    lower, _, upper = statistics.quantiles(samples, n=4)
    return Times(median, (upper - lower) / median)
