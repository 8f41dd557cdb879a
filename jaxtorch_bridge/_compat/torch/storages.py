"""Torch's storages: their numbers, who holds them, their memory.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import torch

storage_use_count: Callable[[int], int] = torch._C._storage_Use_Count


def storage_key(tensor: torch.Tensor) -> int:
    """Equal for tensors that share memory, real or fake."""
    return int(tensor.untyped_storage()._cdata)


def memory_key(tensor: torch.Tensor) -> int:
    """The same; 0 for layouts that have no memory of their own (sparse ones)."""
    try:
        return storage_key(tensor)
    except (RuntimeError, NotImplementedError):
        return 0


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor's data pointer means anything: not so for fakes and their like."""
    own = type(tensor).__torch_dispatch__
    return own is torch.Tensor.__torch_dispatch__ or own is torch._C._disabled_torch_dispatch_impl


def reserve_storage_key(tensor: torch.Tensor) -> Any:
    """While this is held, no other storage gets the tensor's `storage_key`; its memory may go."""
    return _Reserved(tensor.untyped_storage())


class _Reserved:
    """A weak reference that is never copied: each copy would release the memory once more."""

    __slots__ = ("_held",)

    def __init__(self, storage: torch.UntypedStorage) -> None:
        from torch.multiprocessing.reductions import StorageWeakRef

        self._held = StorageWeakRef(storage)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Reserved:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a reference to a tensor's memory means nothing in another process")


# Where torch before 2.13 keeps, in a storage's object, the address of the data, what owns it, and
# how it is freed: three words that belong together.
_BEFORE = 2
_WORDS = 3


def give_own_memory(storage: torch.UntypedStorage) -> bool:
    """Move a storage's content to memory of its own, under every tensor that shares it.

    Returns:
        Whether it could be done.
    """
    copy = storage.clone()
    swap = getattr(storage, "_swap_data_ptr_", None)  # torch 2.13 and later
    if swap is not None:
        swap(copy)
    elif can_exchange():
        _exchange(storage, copy)
    else:
        return False
    # `copy` now frees the borrowed memory through its DLPack deleter.
    return True


@functools.cache
def can_exchange() -> bool:
    """Whether storages of this torch lie in memory as `_exchange` takes them to."""
    one, other = (torch.UntypedStorage([number] * 8) for number in (1, 2))
    before = [one.data_ptr(), other.data_ptr()]
    # Read before anything is written: a wrong place is found here.
    if [_words(one)[0], _words(other)[0]] != before:
        return False
    _exchange(one, other)
    return [other.data_ptr(), one.data_ptr()] == before and one.tolist() == [2] * 8


def _exchange(one: torch.UntypedStorage, other: torch.UntypedStorage) -> None:
    """Exchange the memory of two storages of equal size on one device."""
    first, second = _words(one), _words(other)
    first[:], second[:] = second[:], first[:]


def _words(storage: torch.UntypedStorage) -> Any:
    """The three words, to read and to write."""
    start = storage._cdata + _BEFORE * ctypes.sizeof(ctypes.c_void_p)
    return (ctypes.c_size_t * _WORDS).from_address(start)
