"""A context of one's own for context variables. CPython's C API, the same from 3.7 to 3.13."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
from collections.abc import Iterator


@contextlib.contextmanager
def own_context() -> Iterator[None]:
    """A copy of the context, so that variables that are set inside are as before afterwards.

    As `contextvars.Context.run`, for a block: a variable that had no value has none again.
    """
    copy = ctypes.py_object(contextvars.copy_context())
    ctypes.pythonapi.PyContext_Enter(copy)
    try:
        yield
    finally:
        ctypes.pythonapi.PyContext_Exit(copy)
