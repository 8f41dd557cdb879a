"""Where in the caller's code a warning belongs."""

from __future__ import annotations

import sys


def caller_level() -> int:
    """``stacklevel`` of the first frame outside of this package and of JAX."""
    # Frame 0 is this function's, 1 that of the function that warns, which `stacklevel` calls 1.
    level = 2
    frame = sys._getframe(2)
    while frame.f_back is not None and any(
        part in frame.f_code.co_filename for part in ("jaxtorch_bridge/", "/jax/")
    ):
        frame = frame.f_back
        level += 1
    return level
