"""Cycles of objects that nobody can reach, and that seem to hold what they refer to."""

from __future__ import annotations

import gc
from collections.abc import Callable

_GENERATIONS = 3


def is_still(held: Callable[[], bool]) -> bool:
    """Whether something is held once such cycles are gone.

    Args:
        held: Tells whether it seems so now.
    """
    if not held():
        return False
    # What was just made is young. To look at all objects of a large process takes seconds.
    for generation in range(_GENERATIONS):
        gc.collect(generation)
        if not held():
            return False
    return True
