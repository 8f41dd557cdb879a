"""Internals of torch's autograd. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any

import torch
import torch.autograd.graph

_NO_GRAD = torch._C._autograd.CreationMeta.NO_GRAD_MODE


_OWN = frozenset({"aten", "prims", "prim"})
# What cuts the way back, as function modes see it.
DETACH = (
    torch.Tensor.detach,
    torch.detach,
    torch.Tensor.detach_,
    torch.detach_,
    vars(torch._C.TensorBase)["data"].__get__,
)


def is_own(op: Any) -> bool:
    """Whether an op is torch's own, whose derivatives torch knows in both modes and every order."""
    return getattr(op, "namespace", "aten") in _OWN


def is_called_by_torch() -> bool:
    """Whether the call that a function mode sees stands in torch's own Python code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and _is_of_modes(frame):
        frame = frame.f_back
    name = "" if frame is None else frame.f_globals.get("__name__", "")
    return str(name).partition(".")[0] == "torch"


def _is_of_modes(frame: FrameType) -> bool:
    name = str(frame.f_globals.get("__name__", ""))
    return name.partition(".")[0] == __name__.partition(".")[0] or name == "torch.overrides"


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


class _Here(threading.local):
    """Whether one thread keeps what autograd goes back through."""

    keeps = False


_here = _Here()


@contextlib.contextmanager
def keeping_records(keep: bool) -> Iterator[None]:
    """Whether autograd, called in this thread, keeps what it goes back through.

    That is ``retain_graph=True`` whatever the caller says, which changes no value, but memory and
    whether somebody may go back through the same record again.
    """
    _replace_engine()
    before, _here.keeps = _here.keeps, keep
    try:
        yield
    finally:
        _here.keeps = before


@functools.cache
def _replace_engine() -> None:
    # `torch.compiler` replaces this function by the same two names for a while.
    plain: Any = torch.autograd.graph._engine_run_backward

    def run(outputs: Any, cotangents: Any, keep: bool, *args: Any, **kwargs: Any) -> Any:
        return plain(outputs, cotangents, keep or _here.keeps, *args, **kwargs)

    # As with all of torch's own code, its compiler leaves this frame alone. Not by `torch._dynamo`,
    # which takes a second to load.
    frames: Any = torch._C._dynamo.eval_frame
    action = frames._FrameAction
    skip = frames._FrameExecStrategy(action.SKIP, action.DEFAULT)
    frames.set_code_exec_strategy(run.__code__, skip)
    functools.update_wrapper(run, plain)
    modules: tuple[Any, ...] = (torch.autograd, torch.autograd.graph)
    for module in modules:
        module._engine_run_backward = run
