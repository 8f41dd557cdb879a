"""The checks of ``torch.distributions``, left out for one thread. Tried on torch 2.13.0.

Of 2.11 to 2.14 the same is used: ``Distribution._validate_args``, an attribute of the class that
objects have of their own only where they were made with ``validate_args=``. Torch's own switch,
``Distribution.set_default_validate_args``, sets it for the process.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.distributions import Distribution

_NAME = "_validate_args"
_counting = threading.Lock()
_users = 0


class _PerThread:
    """In the place of the attribute: what it was, but for threads that are told otherwise.

    An object's own attribute goes before it, as before any attribute of its class.
    """

    def __init__(self, others: bool, left_out: Callable[[], bool]) -> None:
        self.others = others
        self._left_out = left_out

    def __get__(self, instance: Any, owner: type | None = None) -> bool:
        return False if self._left_out() else self.others


@contextlib.contextmanager
def checks_left_out(left_out: Callable[[], bool]) -> Iterator[None]:
    """Ask whether to leave out checks, in the thread that would make them.

    Args:
        left_out: Asked wherever torch would check; the same in all uses at one time.
    """
    global _users
    with _counting:
        _users += 1
        found = vars(Distribution)[_NAME]
        # Where it is off there is nothing to leave out.
        if found is True:
            setattr(Distribution, _NAME, _PerThread(found, left_out))
    try:
        yield
    finally:
        with _counting:
            _users -= 1
            found = vars(Distribution)[_NAME]
            # Otherwise somebody has used torch's own switch since, and that stays.
            if not _users and isinstance(found, _PerThread):
                setattr(Distribution, _NAME, found.others)
