"""Which ATen op of a function made each of its results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..._compat import torch_internals as compat
from .memory_layout import fills_its_memory


@dataclass(frozen=True)
class Maker:
    """The op that makes a result's memory.

    Attributes:
        number: Of the op among those that the function runs, from 0.
        op: The ATen overload.
        operands: What it was called with; see `operands`.
        shape: Of what the op returns.
        stride: Likewise; the result may be a view that covers all of it.
    """

    number: int
    op: Any
    operands: tuple[Any, ...]
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def counts(op: Any) -> bool:
    """Whether an op is counted: not those that fakes run and real tensors do not.

    Fakes are asked for their device by an op, and what makes a fake detaches it.
    """
    return op is not torch.ops.aten.detach.default and op.namespace != "prim"


def operands(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides on the shape and dtype of an op's result.

    An ``out=`` form would cast to another dtype, and ``copy_`` would broadcast, without a word.
    """
    return (*map(_operand, args), *((name, _operand(kwargs[name])) for name in sorted(kwargs)))


def _operand(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(map(_operand, value))
    return type(value) if isinstance(value, (float, complex, torch.Generator)) else value


class Makers:
    """Counts a function's ops while it is watched, and remembers who made which memory."""

    def __init__(self) -> None:
        self.count = 0
        self._made: dict[int, tuple[Maker, torch.Tensor]] = {}

    def note(self, op: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Take in the next op."""
        if not counts(op):
            return
        if type(result) is not tuple and isinstance(result, torch.Tensor) and result.numel():
            shape, stride = tuple(result.shape), tuple(result.stride())
            maker = Maker(self.count, op, operands(args, kwargs), shape, stride)
            # Views and writes in place return memory that somebody made before. The tensor is
            # held so that no later one gets the same memory.
            self._made.setdefault(_memory(result), (maker, result))
        self.count += 1

    def of(self, leaves: Sequence[Any]) -> tuple[Maker | None, ...]:
        """For each result its maker; None if it is not known or made more than the result."""
        found: list[Maker | None] = []
        for leaf in leaves:
            maker, made = self._made.get(_memory(leaf), (None, None))
            taken = any(other is maker for other in found)
            found.append(None if taken or not _covers(leaf, maker, made) else maker)
        return tuple(found)


def _memory(tensor: Any) -> int:
    if not isinstance(tensor, torch.Tensor):
        return 0
    try:
        return compat.storage_key(tensor)
    except (RuntimeError, NotImplementedError):  # sparse and the like
        return 0


def _covers(leaf: torch.Tensor, maker: Maker | None, made: torch.Tensor | None) -> bool:
    """Whether a result is all of what the op made, row-major."""
    return (
        maker is not None
        and made is not None
        and leaf.dtype == made.dtype
        and leaf.numel() == made.numel() == math.prod(maker.shape)  # it may have been resized
        and leaf.storage_offset() == 0
        and leaf.is_contiguous()
        and fills_its_memory(made)
    )
