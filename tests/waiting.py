"""How tests wait for another thread or process: `until`, where no time decides anything."""

from __future__ import annotations

import time
from collections.abc import Callable

# Only so that what never comes is a failure and not a run without an end.
PATIENCE_SECONDS = 300


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: It never does.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("what the test waits for has not come")
        time.sleep(0.001)
