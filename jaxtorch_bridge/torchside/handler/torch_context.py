"""Torch's thread-local settings: captured where a plan is made, restored where it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..._compat.torch.operators.higher_order import higher_order_by_code
from ..._compat.torch.thread_flags import function_modes, is_any_autocast_enabled

# Autocast is one flag for each of torch's devices; calls are made on these two.
_AUTOCAST_DEVICES = ("cpu", "cuda")

Autocast = tuple[tuple[str, torch.dtype], ...]


@dataclass(frozen=True)
class TorchContext:
    """What of the caller's thread changes what a torch function computes.

    Attributes:
        grad: Whether autograd records.
        autocast: The (device type, dtype) pairs that autocast is on for.
        default_dtype: What ``torch.zeros(3)`` makes. Global in torch, so only part of the key.
        default_device: Where it makes it.
        by_code: Torch's higher-order operators are run by their own code. The caller's thread says
            nothing of it; it is so for functions that are known to use them.
    """

    grad: bool
    autocast: Autocast
    default_dtype: torch.dtype
    default_device: str = "cpu"
    by_code: bool = False

    def texts(self) -> tuple[tuple[str, str], ...]:
        """The settings that differ from torch's defaults, for plans and messages."""
        found = []
        if not self.grad:
            found.append(("grad", "off"))
        found += [(f"autocast[{device}]", str(dtype)) for device, dtype in self.autocast]
        if self.default_dtype is not torch.float32:
            found.append(("default_dtype", str(self.default_dtype)))
        if self.default_device != "cpu":
            found.append(("default_device", self.default_device))
        return tuple(found)

    @property
    def plain(self) -> bool:
        """Grad mode on, no autocast, no default device: what the native handler checks for."""
        plain = self.grad and not self.autocast and self.default_device == "cpu"
        return plain and not self.by_code

    def without_grad(self) -> TorchContext:
        """For captured graphs, which are below autograd and autocast already."""
        return replace(self, grad=False, autocast=(), by_code=False)

    def with_grad(self) -> TorchContext:
        """For functions that autograd is to record."""
        return replace(self, grad=True)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Make this thread's settings these, and put the old ones back on every way out."""
        with contextlib.ExitStack() as stack:
            # Under it autograd records nothing, whatever the grad mode.
            if torch.is_inference_mode_enabled():
                stack.enter_context(torch.inference_mode(False))
            if torch.is_grad_enabled() is not self.grad:
                stack.enter_context(torch.set_grad_enabled(self.grad))
            if _default_device() != self.default_device:
                stack.enter_context(torch.device(self.default_device))
            # Also where the plan has none and the thread has: it must be off.
            if self.autocast or is_any_autocast_enabled():
                wanted = dict(self.autocast)
                for device in _AUTOCAST_DEVICES:
                    stack.enter_context(_autocast(device, wanted.get(device)))
            if self.by_code:
                stack.enter_context(higher_order_by_code())
            yield


def current_context() -> TorchContext:
    """The settings of this thread."""
    autocast: Autocast = ()
    if is_any_autocast_enabled():
        autocast = tuple(
            (device, torch.get_autocast_dtype(device))
            for device in _AUTOCAST_DEVICES
            if torch.is_autocast_enabled(device)
        )
    return TorchContext(
        torch.is_grad_enabled(), autocast, torch.get_default_dtype(), _default_device()
    )


def _default_device() -> str:
    # A default device is a function mode: without any there is none.
    return str(torch.get_default_device()) if function_modes() else "cpu"


class InContext:
    """A run that first makes the thread's torch context the plan's."""

    def __init__(self, run: Callable[..., Any], context: TorchContext) -> None:
        self._run = run
        self._context = context

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Run with the plan's context, whatever thread this is."""
        with self._context.scope():
            # Views made while the thread was in inference mode cannot be recorded by autograd.
            usable = [tensor.clone() if tensor.is_inference() else tensor for tensor in tensors]
            return self._run(*usable)


def _autocast(device: str, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    if dtype is None:
        if not torch.is_autocast_enabled(device):
            return contextlib.nullcontext()
        # Also inside of a caller's autocast, which it would inherit.
        return torch.autocast(device, enabled=False)
    return torch.autocast(device, dtype=dtype)
