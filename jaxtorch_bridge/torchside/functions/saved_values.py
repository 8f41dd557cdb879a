"""What autograd saves of tensors that a function goes on to write to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..._compat.torch import autograd
from ..._compat.torch.storages import storage_key
from ..._compat.torch.tensors import write_count


@contextmanager
def saving_values(copies: Sequence[torch.Tensor]) -> Iterator[None]:
    """Have autograd keep values as they are, of tensors that may be written to later."""
    if not autograd.may_hook_saved_tensors():
        yield
        return
    # By memory: views of what may be written to are kept as they are too.
    keys = {storage_key(copy) for copy in copies}

    # Torch asks the innermost hooks alone, and those of a tape around this must have their say.
    around = autograd.hooks_of_saved_tensors()
    pack, unpack = around or (with_writes_counted, unless_written)

    def keep(tensor: torch.Tensor) -> Any:
        return pack(tensor.detach().clone() if storage_key(tensor) in keys else tensor)

    # Autograd itself refuses to go back through a value that was written to after it was saved.
    with torch.autograd.graph.saved_tensors_hooks(keep, unpack):
        yield


def with_writes_counted(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """What to keep of a tensor that autograd saves.

    Detached: a result that kept its own node would be a cycle. The memory and its count of writes
    are the tensor's own.
    """
    return tensor.detach(), write_count(tensor)


def unless_written(kept: tuple[torch.Tensor, int]) -> torch.Tensor:
    """The tensor that was saved. Where there are hooks, torch leaves the count of writes to them.

    Raises:
        RuntimeError: It was written to after it was saved, as torch says without hooks.
    """
    tensor, version = kept
    if write_count(tensor) != version:
        raise RuntimeError(
            "one of the variables needed for gradient computation has been modified by an "
            f"inplace operation: [{tensor.type()} {list(tensor.shape)}] is at version "
            f"{write_count(tensor)}; expected version {version} instead."
        )
    return tensor
