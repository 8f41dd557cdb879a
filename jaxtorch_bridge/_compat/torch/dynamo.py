"""Torch's compiler: loading it, and evaluating without it.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes


@functools.cache
def load(name: str) -> Any:
    """A module of torch's, loaded outside of all modes.

    A tensor that it makes for itself would otherwise be a fake for ever.
    """
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        return importlib.import_module(name)


@functools.cache
def load_deprecated(name: str) -> None:
    """Load a module that torch scripts in a way of which it warns, once, as its first use would.

    Before Python 3.14, no thread is warned of anything meanwhile.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load(name)


class _Here(threading.local):
    """How often one thread has asked for code as it is written."""

    depth = 0


_here = _Here()
_counting = threading.Lock()
_users = 0


class _Stance:
    """Dynamo's stance: ``force_eager`` for threads that asked for it, as it was for all others."""

    def __init__(self, others: Any) -> None:
        self.others = others

    def __getattr__(self, name: str) -> Any:
        return getattr(self.others, name)

    @property
    def stance(self) -> Any:
        # Dynamo asks in the thread that calls a compiled function.
        return "force_eager" if _here.depth else self.others.stance


@contextlib.contextmanager
def as_written() -> Iterator[None]:
    """Run functions made by ``torch.compile`` as they were written, in this thread.

    Torch's own ``set_stance`` would have all threads run what they compiled as it was written.
    """
    global _users
    frames = load("torch._dynamo.eval_frame")
    with _counting:
        _users += 1
        # Another thread may have set a stance since, or have put back what it found.
        if not isinstance(frames._stance, _Stance):
            frames._stance = _Stance(frames._stance)
    _here.depth += 1
    try:
        yield
    finally:
        _here.depth -= 1
        with _counting:
            _users -= 1
            # Otherwise another thread has set one, which stays, and may put this one back: then it
            # says to all what the one before said.
            if not _users and isinstance(frames._stance, _Stance):
                frames._stance = frames._stance.others


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """The same for what is traced; to be asked for under the lock of tracing.

    Dynamo can neither be traced through nor be differentiated by ``torch.func``.
    """
    with as_written(), load("torch._dynamo.config").patch(error_on_nested_fx_trace=False):
        yield
