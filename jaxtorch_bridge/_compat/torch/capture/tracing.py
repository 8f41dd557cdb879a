"""What holds while torch traces or evaluates with fakes.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

import torch

# To be held by whoever traces or evaluates with fakes. Torch sets flags and patches of the whole
# process meanwhile (fx's, dynamo's, those of attention): two threads at once can leave them on for
# ever, or take each other's off.
tracing = threading.RLock()


def evaluates_abstractly() -> bool:
    """Whether a mode watches or replaces ATen ops, so that values may not be looked at."""
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    return _get_current_dispatch_mode() is not None


@contextlib.contextmanager
def abstract_surroundings() -> Iterator[None]:
    """Let an abstract evaluation neither log nor leave fakes in autocast's cache of weights.

    What it fails at, the caller reports itself.
    """
    logger, hushed = logging.getLogger("torch._subclasses.fake_tensor"), _Hushed()
    caches = torch.is_autocast_cache_enabled()
    logger.addFilter(hushed)
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        logger.removeFilter(hushed)
        torch.set_autocast_cache_enabled(caches)
        torch.clear_autocast_cache()  # the function may have switched it on


class _Hushed(logging.Filter):
    """Lets nothing pass that the thread logs which made this."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return threading.get_ident() != self._thread
