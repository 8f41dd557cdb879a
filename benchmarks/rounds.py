"""Longer calls: one of each variant a round, and medians over the rounds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import subjects
from report import Row, at_most
from timing import Variant, in_turn


def rounds(
    variants: Mapping[str, Variant],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Milliseconds of each call; the variants in turn, in shuffled order."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for call in variants.values():
        for _ in range(3):
            call()
    for name in in_turn(variants, seconds=seconds):
        start = clock()
        variants[name]()
        times[name].append((clock() - start) * 1e3)
    return times


def median_rows(
    times: Mapping[str, list[float]],
    limits: Mapping[str, float],
    others: Mapping[str, str] = subjects.OTHERS,
) -> tuple[list[Row], str]:
    """Medians over rounds; ratios are the medians of the ratios within a round.

    Args:
        times: Of each variant, round by round.
        limits: Heading of a ratio to the most that it should be, for the bridge.
        others: Heading of a ratio to the variant that it is to.
    """
    rows = []
    for name, mine in times.items():
        beside = {"min": min(mine)}
        for heading, other in others.items():
            if other in times:
                pairs = zip(mine, times[other], strict=True)
                beside[heading] = statistics.median(one / two for one, two in pairs)
        targets = [
            at_most(beside[heading], limit, heading)
            for heading, limit in limits.items()
            if name == subjects.BRIDGE and heading in beside
        ]
        rows.append(Row(name, statistics.median(mine), beside, targets))
    return rows, f"{len(next(iter(times.values())))} rounds, one call of each variant a round."
