"""Internals of torch's autograd. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

import torch

_NO_GRAD = torch._C._autograd.CreationMeta.NO_GRAD_MODE


_OWN = frozenset({"aten", "prims", "prim"})


def is_own(op: Any) -> bool:
    """Whether an op is torch's own, whose derivatives torch knows in both modes and every order."""
    return getattr(op, "namespace", "aten") in _OWN


def in_custom_function() -> bool:
    """Whether the code that runs was called by a ``torch.autograd.Function``'s ``apply``."""
    return _runs_below(_codes_below_apply())


def in_custom_backward() -> bool:
    """Whether the code that runs was called by autograd for such a function's ``backward``."""
    return _runs_below(frozenset({torch.autograd.function.BackwardCFunction.apply.__code__}))


def _runs_below(codes: frozenset[CodeType]) -> bool:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


def _codes_below_apply() -> frozenset[CodeType]:
    apply = getattr(torch.autograd.Function.apply, "__func__", None)
    if apply is not None:
        return frozenset({apply.__code__})
    # Since torch 2.14 `apply` is C code, which has no frame: what it calls has.
    found: set[CodeType] = set()
    pending: list[Any] = [torch.autograd.Function]
    while pending:
        one = pending.pop()
        pending += one.__subclasses__()
        for name in ("forward", "setup_context"):
            code = getattr(getattr(one, name, None), "__code__", None)
            if code is not None:
                found.add(code)
    return frozenset(found)


def made_without_grad(tensor: torch.Tensor) -> bool:
    """Whether a tensor is a view that was made while gradients were off."""
    # Torch refuses to say of others.
    if not tensor._is_view():
        return False
    return bool(torch._C._autograd._get_creation_meta(tensor) == _NO_GRAD)


def may_hook_saved_tensors() -> bool:
    """Whether tensors that autograd saves may be replaced; not inside of ``torch.func``."""
    return bool(torch._C._autograd._saved_tensors_hooks_is_enabled())  # type: ignore[attr-defined]


def hooks_of_saved_tensors() -> tuple[Any, Any] | None:
    """What is done with tensors that autograd saves in this thread: (pack, unpack), or None."""
    found = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return None if found is None else (found[0], found[1])


def refuses_hooks(error: BaseException) -> bool:
    """Whether ``torch.func`` raised this because tensors that autograd saves are hooked."""
    return isinstance(error, RuntimeError) and "yet support saved tensor hooks" in str(error)
