"""Transforms of ``torch.func``: their tensors, forward mode, ops that they do one by one.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator

import torch

from .dynamo import load_deprecated


def is_transformed(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for another one, inside of ``torch.func``'s transforms."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def load_forward_mode() -> None:
    """Load torch's forward-mode decompositions, as its first jvp would."""
    load_deprecated("torch._decomp.decompositions_for_jvp")


@contextlib.contextmanager
def unwarned_fallbacks() -> Iterator[None]:
    """Let ``torch.vmap`` go through a batch one by one, for ops that need it, without a word.

    Torch has one switch for the process, and asks no filter of Python's everywhere: meanwhile
    other threads are not warned either.
    """
    set_warnings = torch._C._functorch._set_vmap_fallback_warning_enabled  # type: ignore[attr-defined]
    before = warns_of_fallbacks()
    set_warnings(False)
    try:
        yield
    finally:
        set_warnings(before)


def warns_of_fallbacks() -> bool:
    """Whether ``torch.vmap`` warns of ops that it does one by one; Python cannot ask torch."""
    ask = _fallback_switch()
    return True if ask is None else bool(ask())  # as torch begins


@contextlib.contextmanager
def batch_level(size: int) -> Iterator[BatchLevel]:
    """A level of ``torch.func.vmap``, without what that does to functions and their arguments.

    That is a third of the time of a small backward. Nothing that is drawn at random is in it.
    """
    level = torch._C._functorch._vmap_increment_nesting(size, "error")
    try:
        yield BatchLevel(level, size)
    finally:
        torch._C._functorch._vmap_decrement_nesting()


class BatchLevel:
    """See `batch_level`."""

    def __init__(self, level: int, size: int) -> None:
        self._level, self._size = level, size

    def enter(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor with a batch axis in front as one without, which operators see."""
        return torch._C._functorch._add_batch_dim(tensor, 0, self._level)

    def leave(self, tensor: torch.Tensor) -> torch.Tensor:
        """With its batch axis again; one that has none is repeated."""
        return torch._C._functorch._remove_batch_dim(tensor, self._level, self._size, 0)


@functools.cache
def _fallback_switch() -> Callable[[], bool] | None:
    try:
        ask = ctypes.CDLL(torch._C.__file__)["_ZN2at9functorch28isVmapFallbackWarningEnabledEv"]
    except AttributeError:
        return None
    ask.restype = ctypes.c_bool
    return ask
