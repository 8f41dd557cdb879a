"""How tensors saved for the backward pass travel through XLA's buffers.

XLA's buffers are row-major; a saved tensor need not be, and the backward graph was traced for
its strides. So a residual travels flat, in the order in which it lies in memory, and gets its
strides back without a copy.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch

from ...._compat.torch_internals import is_batched, view_dtype
from ....dtypes import DTYPES, canonical_name
from ....planner.array_signature import ArraySig

# Above this many times the elements, the gaps between them are not worth carrying.
_MAX_GAPS = 2


@dataclass(frozen=True)
class ResidualLayout:
    """One saved tensor: its torch metadata and the flat array that carries it.

    Attributes:
        name: The graph node that it comes from.
        shape: Torch's shape.
        stride: Torch's strides, in elements.
        dtype: Torch's dtype, by name.
        narrow: JAX cannot hold the dtype (x64 is off): the bytes travel as int32 pairs.
        on_host: It lies on the CPU although the call runs on a GPU, and has to again.
    """

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    narrow: bool
    on_host: bool = False

    @classmethod
    def of(
        cls, name: str, tensor: torch.Tensor, *, x64: bool, on_host: bool = False
    ) -> ResidualLayout:
        """The layout of a (fake) tensor."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        narrow = canonical_name(dtype, x64=x64) != dtype
        return cls(name, tuple(tensor.shape), tuple(tensor.stride()), dtype, narrow, on_host)

    @property
    def extent(self) -> int:
        """Elements from the first to the last in memory, gaps included."""
        # The sum below is for tensors that have elements.
        if 0 in self.shape:
            return 0
        return 1 + sum(
            (size - 1) * step for size, step in zip(self.shape, self.stride, strict=True)
        )

    @property
    def compact(self) -> bool:
        """Whether the elements travel without the gaps between them."""
        return self.extent > _MAX_GAPS * math.prod(self.shape)

    @property
    def sig(self) -> ArraySig:
        """The flat array on the JAX side."""
        count = math.prod(self.shape) if self.compact else self.extent
        path = f"residual {self.name}"
        if self.narrow:
            pairs = count * (DTYPES[self.dtype].size_bytes // 4)
            return ArraySig(path, (pairs,), "int32", "int32", differentiable=False)
        return ArraySig(path, (count,), self.dtype, self.dtype, differentiable=False)

    @property
    def not_in_place(self) -> str:
        """Why torch cannot compute it in the flat array, or the empty string."""
        if self.narrow:
            return "it travels as int32 pairs"
        if self.on_host:
            return "it is on the CPU"
        return "" if self._order is not None else "it has gaps or shared elements"

    @functools.cached_property
    def _order(self) -> tuple[int, ...] | None:
        """The axes from the slowest to the fastest in memory, if there are neither gaps nor
        shared elements between them."""
        order = tuple(sorted(range(len(self.shape)), key=lambda axis: -self.stride[axis]))
        step = 1
        for axis in reversed(order):
            if self.shape[axis] != 1 and self.stride[axis] != step:
                return None
            step *= self.shape[axis]
        return order

    def encode(self, tensor: torch.Tensor) -> torch.Tensor:
        """The flat view of a saved tensor; copies only if it is not laid out as planned."""
        # A pending conjugation or negation stands in a flag that no buffer carries.
        tensor = tensor.resolve_conj().resolve_neg()
        if self._order is not None:
            # Without as_strided, which torch.vmap does not know.
            flat = tensor.permute(self._order).contiguous().reshape(-1)
        elif self.compact:
            # Not reshape alone: a column is flattened as a view of itself, gaps and all.
            flat = tensor.contiguous().reshape(-1)
        else:
            flat = restride(tensor, self.stride).as_strided((self.extent,), (1,))
        return view_dtype(flat, torch.int32) if self.narrow else flat

    def decode(self, flat: torch.Tensor) -> torch.Tensor:
        """The saved tensor again, with its strides."""
        if self.on_host:
            flat = flat.cpu()  # waits for the GPU
        if self.narrow:
            flat = view_dtype(flat, getattr(torch, self.dtype))
        if self._order is not None:
            sizes = [self.shape[axis] for axis in self._order]
            places = [self._order.index(axis) for axis in range(len(self.shape))]
            tensor = flat.view(sizes).permute(places)
            if tuple(tensor.stride()) == self.stride or is_batched(tensor):
                return tensor
            # An axis of size 1 may have any stride.
        if self.compact:
            return restride(flat.view(self.shape), self.stride)
        return flat.as_strided(self.shape, self.stride)


def restride(tensor: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """The tensor with exactly these strides: itself if it has them, otherwise a copy."""
    if tuple(tensor.stride()) == stride:
        return tensor
    # Made from the tensor, so that torch.vmap gives it the tensor's batch and can write to it.
    laid_out = tensor.new_empty_strided(tensor.shape, stride)
    # An expanded dimension (stride 0) cannot be written to as a whole; one slice is all of it.
    target, source = laid_out, tensor
    for axis, step in enumerate(stride):
        if step == 0 and tensor.shape[axis] > 1:
            target, source = target.narrow(axis, 0, 1), source.narrow(axis, 0, 1)
    target.copy_(source)
    return laid_out
