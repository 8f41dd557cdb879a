"""Fake tensors, and what their failures mean. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .dynamo import load
from .value_symbols import shape_env

# What hands a tensor's memory to others, as function modes see it.
LEAVES_TORCH = frozenset({torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.__dlpack__})


def fake_tensor_mode() -> Any:
    """A mode in which tensors have shapes, dtypes and strides but no memory.

    Real tensors that a function closes over (parameters, buffers) are taken as fakes too. Their
    memory cannot be looked at: otherwise ``numpy`` would make an array of no memory at all.
    """
    load("torch._dynamo")  # every op of a fake tensor needs it
    from torch._functorch import config
    from torch._subclasses.fake_tensor import FakeTensorMode

    # The mode reads it when it is made.
    with config.patch(fake_tensor_allow_unsafe_data_ptr_access=False):
        return FakeTensorMode(allow_non_fake_inputs=True)


def symbolic_mode() -> Any:
    """A fake tensor mode with symbols for sizes and numbers that follow from values."""
    load("torch._dynamo")
    from torch._functorch import config
    from torch._subclasses.fake_tensor import FakeTensorMode

    with config.patch(fake_tensor_allow_unsafe_data_ptr_access=False):
        return FakeTensorMode(allow_non_fake_inputs=True, shape_env=shape_env())


def reader_in(error: BaseException) -> str:
    """The operation whose result or size follows from values, at which an evaluation failed."""
    operation = getattr(error, "func", None)
    if operation is None:
        return ""
    if str(operation) == "aten._local_scalar_dense.default":
        return "`.item()` or the like"
    return str(operation)


def without_constant(mode: Any, tensor: torch.Tensor) -> torch.Tensor:
    """The fake of a real tensor, always the same one.

    A fake mode that meets a small real tensor by itself keeps it as a constant and computes
    with it for real, so that an in-place op would change the caller's tensor.
    """
    # Sizes as numbers: a symbol would be one more thing that a function can look at.
    fake: torch.Tensor = mode.from_tensor(tensor, static_shapes=True)
    return fake


def is_fake(tensor: torch.Tensor) -> bool:
    """Whether a tensor belongs to a fake tensor mode."""
    from torch._subclasses.fake_tensor import FakeTensor

    return isinstance(tensor, FakeTensor)


class ValuesReadError(RuntimeError):
    """A function that is evaluated abstractly asks for values in a way that torch does not see."""


def looks_at_values(error: BaseException) -> bool:
    """Whether a fake evaluation failed because the function asked for a value."""
    from torch._subclasses.fake_tensor import (
        DataDependentOutputException,
        DynamicOutputShapeException,
    )
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    kinds = (
        ValuesReadError,
        DataDependentOutputException,
        DynamicOutputShapeException,
        GuardOnDataDependentSymNode,
    )
    if isinstance(error, kinds):
        return True
    # Torch says some of it in words alone.
    text = str(error)
    return "Cannot access data pointer" in text or ".item()" in text or "meta tensors" in text


def cannot_be_fake(error: BaseException) -> bool:
    """Whether a fake evaluation failed for want of a rule, not because the call is wrong."""
    from torch._subclasses import fake_tensor

    kinds = (
        fake_tensor.UnsupportedFakeTensorException,
        fake_tensor.UnsupportedOperatorException,
        NotImplementedError,
    )
    words = (".numpy() is not supported", "function keeps tensors that it makes")
    # The second is said by `abstract_evaluation`, of functions that keep fakes.
    return isinstance(error, kinds) or any(one in str(error) for one in words)


# What ``torch.tensor`` makes of the numbers that it is given.
_LIFTS = (
    torch.ops.aten.lift.default,
    torch.ops.aten.lift_fresh.default,
    torch.ops.aten.lift_fresh_copy.default,
)


def lifts_constants(function: Any) -> bool:
    """Whether an ATen op takes in a new tensor of given numbers, which are the same each time."""
    return function in _LIFTS


# Methods that read a real tensor's memory, which no dispatch sees.
_READS = (torch.Tensor.tolist, torch.Tensor.__dlpack__)


def reads_values(function: Any, arguments: Sequence[Any]) -> bool:
    """Whether a torch function hands out the values of a real tensor."""
    return function in _READS and not is_fake(arguments[0])
