"""Skeletons whose code a backward may run, after the call that filled them has ended.

``torch.utils.checkpoint`` runs layers again when gradients are taken; so may custom functions and
hooks. They refer to parts of the skeleton of their own call, which must then hold that call's
tensors, and nobody else's: it is kept from other calls until the backward is over.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import torch

from ..._compat.torch.storages import memory_key
from .skeleton import Skeleton


class Input(NamedTuple):
    """Stands for an input of the recorded function, wherever it is when gradients are taken."""

    place: int
    dtype: torch.dtype


def _absent(one: Input) -> torch.Tensor:
    raise AssertionError(f"nothing was taken out, and so not {one}")


class _Kept(NamedTuple):
    skeleton: Skeleton
    tensors: list[torch.Tensor | Input]
    give_back: Callable[[Skeleton], None]


class KeptSkeletons:
    """Those of one recorded run. Empty for nearly all."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []

    def __bool__(self) -> bool:
        return bool(self._kept)

    def keep(
        self,
        skeleton: Skeleton,
        tensors: Sequence[torch.Tensor],
        give_back: Callable[[Skeleton], None],
    ) -> None:
        """Keep one.

        Args:
            skeleton: Emptied.
            tensors: What it was filled with.
            give_back: Takes it when no backward needs it any more.
        """
        self._kept.append(_Kept(skeleton, list(tensors), give_back))

    def take_over(self, others: KeptSkeletons) -> None:
        """Keep theirs, and they keep none."""
        self._kept += others._kept
        others._kept = []

    def refer_to(self, inputs: Sequence[torch.Tensor], memory: AbstractSet[int]) -> None:
        """Hold nothing that lies in XLA's memory.

        Args:
            inputs: Those of the recorded function, which will be elsewhere.
            memory: Of XLA, by `memory_key`.
        """
        places = {id(tensor): index for index, tensor in enumerate(inputs)}
        for kept in self._kept:
            for slot, tensor in enumerate(kept.tensors):
                if isinstance(tensor, Input):
                    continue
                index = places.get(id(tensor))
                if index is not None:
                    kept.tensors[slot] = Input(index, tensor.dtype)
                elif memory_key(tensor) in memory:
                    kept.tensors[slot] = tensor.detach().clone()

    @contextlib.contextmanager
    def filled(self, inputs: Callable[[Input], torch.Tensor] = _absent) -> Iterator[None]:
        """While gradients are taken.

        Args:
            inputs: Finds what `refer_to` has taken out.
        """
        filled = []
        try:
            for kept in self._kept:
                tensors = [inputs(one) if isinstance(one, Input) else one for one in kept.tensors]
                filled.append(kept.skeleton)
                kept.skeleton.fill(tensors)
            yield
        finally:
            for skeleton in filled:
                skeleton.empty()

    def release(self) -> None:
        """No backward will come any more."""
        kept, self._kept = self._kept, []
        for one in kept:
            one.give_back(one.skeleton)


class _OfThisThread(threading.local):
    latest: KeptSkeletons | None = None


_THREAD = _OfThisThread()


def keeping() -> KeptSkeletons | None:
    """Who keeps skeletons for what runs now; None where nothing is recorded."""
    return _THREAD.latest


@contextlib.contextmanager
def keeping_skeletons() -> Iterator[KeptSkeletons]:
    """Around a recorded run and, but for tapes, around its backward.

    What is recorded inside of another recorded run is a part of that: it goes on keeping.
    """
    outer, own = _THREAD.latest, KeptSkeletons()
    _THREAD.latest = own
    try:
        yield own
    finally:
        _THREAD.latest = outer
        if outer is None:
            own.release()
        else:
            outer.take_over(own)
