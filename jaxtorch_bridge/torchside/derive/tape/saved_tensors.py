"""What autograd saves while a function runs on XLA's memory, so that it outlives that memory.

Between a forward and its backward XLA may put anything into an input's buffer. So an input, or a
view of one, is saved as a reference, and read from the operands of the backward call; all else is
torch's own memory, and is kept as it is. See ``torch.autograd.graph.saved_tensors_hooks``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import saved_tensors_hooks

from ...._compat.torch.tensors import negative_view
from ...functions.saved_values import unless_written, with_writes_counted

# Of what is smaller, nobody asks whether it is a part of something larger.
_SMALL_BYTES = 4096


class Reference(NamedTuple):
    """A saved tensor that lies in the memory of an operand, and how it lies there.

    Attributes:
        operand: Which one.
        size: Of the tensor.
        stride: In elements of ``dtype``.
        offset: In bytes.
        dtype: May differ from the operand's.
        conjugated: A conjugation is pending.
        negated: A negation is pending.
    """

    operand: int
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    conjugated: bool
    negated: bool

    def read(self, operands: Sequence[torch.Tensor]) -> torch.Tensor:
        """The tensor, in the memory that the operand has now."""
        memory = operands[self.operand]
        start = self.offset // self.dtype.itemsize
        if memory.dtype is self.dtype:
            # Shares the count of writes as well: who writes to it is found out by the handler.
            found = memory.as_strided(self.size, self.stride, start)
        else:
            found = torch.empty(0, dtype=self.dtype, device=memory.device)
            found.set_(memory.untyped_storage(), start, self.size, self.stride)
        if self.conjugated:
            found = found.conj()
        return negative_view(found) if self.negated else found


# Measured on a CPU, in microseconds: what torch and the two hooks take for each tensor that is
# saved, most of it torch, what a copy of an input takes, and the bytes that it moves meanwhile.
_HOOKS_US = 5.0
_COPY_US = 1.5
_BYTES_PER_US = 8000
# Copies may add this part to what torch keeps anyway.
_MOST_MEMORY = 1 / 8


def copies_are_cheaper(count: int, size_bytes: int, operands: Sequence[torch.Tensor]) -> bool:
    """Whether copies of the operands cost less than hooks, and little memory.

    Args:
        count: Of the tensors that autograd saves.
        size_bytes: What they take.
        operands: What would be copied. Not on a GPU, where nobody has measured it.
    """
    moved = sum(tensor.nbytes for tensor in operands)
    if moved > size_bytes * _MOST_MEMORY or any(tensor.is_cuda for tensor in operands):
        return False
    return len(operands) * _COPY_US + moved / _BYTES_PER_US < count * _HOOKS_US


class SavedTensors:
    """The hooks of one run.

    Attributes:
        operands: Where references are read from: those of the forward while it runs, those of the
            backward while that does, and nothing between them.
        size_bytes: Memory that is kept for the backward, each larger piece counted once.
        count: How many tensors are.
    """

    def __init__(self, operands: Sequence[torch.Tensor]) -> None:
        self.operands: Sequence[torch.Tensor] = operands
        self.size_bytes = 0
        self.count = 0
        self._counted: set[int] = set()
        # Memory of operands, by address. Where one lies inside of another, both hold the same.
        ranges = sorted(
            (tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes, place)
            for place, tensor in enumerate(operands)
            if tensor.nbytes
        )
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._places: list[int] = []
        for start, end, place in ranges:
            if self._starts and start == self._starts[-1]:
                # The longer one has the views of both.
                self._ends[-1], self._places[-1] = end, place
            elif not self._ends or end > self._ends[-1]:
                self._starts.append(start)
                self._ends.append(end)
                self._places.append(place)

    def pack(self, tensor: torch.Tensor) -> Any:
        """What to keep of a tensor that autograd saves."""
        self.count += 1
        try:
            address = tensor.data_ptr()
        except (RuntimeError, NotImplementedError):
            # Sparse ones, and those that stand for others inside of torch.func: kept as they are.
            return with_writes_counted(tensor)
        index = bisect_right(self._starts, address) - 1
        if index >= 0 and address < self._ends[index]:
            return Reference(
                self._places[index],
                tensor.size(),
                tensor.stride(),
                address - self._starts[index],
                tensor.dtype,
                tensor.is_conj(),
                tensor.is_neg(),
            )
        self._count(tensor)
        return with_writes_counted(tensor)

    def _count(self, tensor: torch.Tensor) -> None:
        size = tensor.nbytes
        if size >= _SMALL_BYTES:
            # Parameters that the function closes over are there anyway.
            if tensor.is_leaf and tensor.requires_grad:
                return
            storage = tensor.untyped_storage()
            key, size = storage.data_ptr(), storage.nbytes()
            if key in self._counted:
                return
            self._counted.add(key)
        self.size_bytes += size

    def unpack(self, packed: Any) -> torch.Tensor:
        """The tensor that was saved.

        Raises:
            RuntimeError: It was written to after it was saved, as torch says without hooks.
        """
        if type(packed) is Reference:
            return packed.read(self.operands)
        return unless_written(packed)

    def hooks(self) -> saved_tensors_hooks:
        """To be in force while the function runs."""
        return saved_tensors_hooks(self.pack, self.unpack)

    def close(self) -> None:
        """No more is saved: forget what stood for the operands of this run."""
        self.operands = ()
        self._starts.clear()
        self._counted.clear()
