"""Time several variants side by side, so that noise falls on all of them alike."""

from __future__ import annotations

import gc
import itertools
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

Variant = Callable[[], Any]

# A batch is short enough to fit between two interruptions by another process, and long enough
# that the caches, cold after the variant before, are warm for most of it.
_BATCH_SECONDS = 2e-3
_BATCH_CALLS = (4, 200)
_WARM_UP_CALLS = 20


def fastest(
    variants: Mapping[str, Variant],
    *,
    seconds: float,
    wait: Callable[[Any], Any] = lambda result: result,
) -> dict[str, float]:
    """Microseconds a call: for each variant the minimum over many short batches.

    Args:
        variants: Name to call. Timed in rounds, one batch of each variant a round.
        seconds: How long to go on.
        wait: Called on the last result of a batch, within its time, for whatever may still run.
    """
    counts = {name: _calls_per_batch(call, wait) for name, call in variants.items()}
    best = dict.fromkeys(variants, float("inf"))
    for name in in_turn(variants, seconds=seconds):
        best[name] = min(best[name], _batch(variants[name], counts[name], wait))
    return {name: value * 1e6 for name, value in best.items()}


def in_turn(names: Iterable[str], *, seconds: float) -> Iterator[str]:
    """Each name once a round, whole rounds for so long; no garbage is collected meanwhile."""
    order = list(names)
    shuffle = random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            # In a fixed order each variant would always meet the caches of the same neighbour.
            shuffle(order)
            yield from order
    finally:
        gc.enable()


def waiting(call: Callable[..., Any], *arguments: Any) -> Variant:
    """A JAX call whose results are waited for each time."""
    return lambda: jax.block_until_ready(call(*arguments))


def _batch(call: Variant, count: int, wait: Callable[[Any], Any]) -> float:
    result = None
    start = time.perf_counter()
    for _ in itertools.repeat(None, count):
        result = call()
    wait(result)
    return (time.perf_counter() - start) / count


def _calls_per_batch(call: Variant, wait: Callable[[Any], Any]) -> int:
    once = min(_batch(call, 1, wait) for _ in range(_WARM_UP_CALLS))
    fewest, most = _BATCH_CALLS
    return max(fewest, min(most, round(_BATCH_SECONDS / once)))
