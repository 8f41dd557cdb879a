"""Numbers of torch's storages, kept from reuse. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

from typing import Any

import torch


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
