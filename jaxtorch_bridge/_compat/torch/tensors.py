"""What torch keeps of tensors. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import operator
from typing import Any

import torch

# How often a tensor's memory was written to; not of inference tensors, which do not count. In C:
# it is asked of all that autograd saves.
write_count = operator.attrgetter("_version")


def version_of(tensor: torch.Tensor) -> int:
    """How often a tensor's memory was written to; -1 for inference tensors, which do not count."""
    return -1 if tensor.is_inference() else int(tensor._version)


def base_of(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor that autograd takes a tensor for a view of."""
    return tensor._base


def has_hooks(tensor: torch.Tensor) -> bool:
    """Whether a tensor has hooks of ``register_hook``."""
    return bool(tensor._backward_hooks)


def negative_view(tensor: torch.Tensor) -> torch.Tensor:
    """The same memory with a negation pending."""
    return torch._neg_view(tensor)


def use_count(tensor: torch.Tensor) -> int:
    """How many hold a tensor, of Python or not; its views and what autograd saved included."""
    return int(tensor._use_count())  # type: ignore[attr-defined]


# A getter of CPython's, which the handler calls without looking it up.
version_getter: Any = torch.Tensor._version


def dlpack_exchange_api() -> Any:
    """Torch's table of DLPack C functions, in a capsule (torch 2.11 and later)."""
    return torch.Tensor.__dlpack_c_exchange_api__
