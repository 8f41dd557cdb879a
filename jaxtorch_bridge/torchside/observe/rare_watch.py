"""When to look closely at what a function does: in its first runs, and then ever more rarely."""

from __future__ import annotations

from ...config import settings


class RareWatch:
    """Counts runs: the first, second, fourth, eighth and so on are watched.

    ``settings.watch_every_call`` has all of them watched.
    """

    def __init__(self) -> None:
        self._runs = 0

    def due(self) -> bool:
        """Whether the run that begins is one of them."""
        self._runs += 1
        # A power of two has one bit.
        return settings.watch_every_call or self._runs & (self._runs - 1) == 0
