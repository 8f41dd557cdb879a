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


class _Stance:
    """Dynamo's stance: ``force_eager`` for the thread that makes it, as it was for all others."""

    def __init__(self, others: Any) -> None:
        self.others = others
        self._thread: int | None = threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.others, name)

    @property
    def stance(self) -> Any:
        # Dynamo asks in the thread that calls a compiled function.
        if threading.get_ident() == self._thread:
            return "force_eager"
        return self.others.stance

    def end(self) -> None:
        self._thread = None


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Run functions made by ``torch.compile`` as they were written, in this thread.

    Dynamo can neither be traced through nor be differentiated by ``torch.func``. Its own
    ``set_stance`` would have all threads run what they compiled as it was written.
    """
    frames = load("torch._dynamo.eval_frame")
    ours = _Stance(frames._stance)
    frames._stance = ours
    try:
        with load("torch._dynamo.config").patch(error_on_nested_fx_trace=False):
            yield
    finally:
        ours.end()  # another thread that set a stance meanwhile may still put this one back
        # Otherwise another thread has set one since, which stays.
        if frames._stance is ours:
            frames._stance = ours.others
