"""What torch has set for a thread, and addresses of what says so.

Tried on torch 2.11.0, 2.13.0 and 2.14.1.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

# What the native handler calls; see native_src/torch_api.h.
is_any_autocast_enabled: Callable[[], bool] = torch._C._is_any_autocast_enabled
# How many torch function modes the thread is in; ``torch.set_default_device`` is one.
function_modes: Callable[[], int] = torch._C._len_torch_function_stack
# What ``torch.no_grad`` and its kin call.
set_grad_enabled: Callable[..., Any] = torch._C._set_grad_enabled

_CPU, _CUDA = 0, 1  # c10::DeviceType


def direct_flags() -> tuple[int, int, int] | None:
    """Addresses of the functions that say what torch has set for the thread that calls them.

    Returns:
        Of ``aoti_torch_grad_mode_is_enabled()`` (torch's stable C interface),
        ``at::autocast::is_autocast_enabled(c10::DeviceType)`` and
        ``at::impl::PythonTorchFunctionTLS::stack_len()``. They cost less than torch's Python
        functions for the same. None where torch lacks one of them, or where one does not answer as
        the Python functions do.
    """
    # Symbols are looked up in what a library needs as well, so this names no file of torch's.
    torch_library = ctypes.CDLL(torch._C.__file__)
    try:
        grad = torch_library.aoti_torch_grad_mode_is_enabled
        autocast = torch_library["_ZN2at8autocast19is_autocast_enabledEN3c1010DeviceTypeE"]
        modes = torch_library["_ZN2at4impl22PythonTorchFunctionTLS9stack_lenEv"]
    except AttributeError:
        return None
    # ctypes would take every result for an int.
    grad.restype, grad.argtypes = ctypes.c_bool, ()
    autocast.restype, autocast.argtypes = ctypes.c_bool, (ctypes.c_int8,)
    modes.restype, modes.argtypes = ctypes.c_int64, ()

    def agree() -> bool:
        return (grad(), autocast(_CPU), autocast(_CUDA), modes()) == (
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_enabled("cuda"),
            function_modes(),
        )

    one_mode_more = torch.overrides.BaseTorchFunctionMode
    # Each flag is switched once: one that answers a constant might agree by chance.
    for setting in (nullcontext, _other_grad, _other_autocast, one_mode_more):
        with setting():
            if not agree():
                return None
    grad_at, autocast_at, modes_at = (_address(function) for function in (grad, autocast, modes))
    return grad_at, autocast_at, modes_at


def _address(function: ctypes._NamedFuncPointer) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def _other_grad() -> torch.set_grad_enabled:
    return torch.set_grad_enabled(not torch.is_grad_enabled())


@contextmanager
def _other_autocast() -> Iterator[None]:
    before = [(device, torch.is_autocast_enabled(device)) for device in ("cpu", "cuda")]
    try:
        for device, enabled in before:
            torch.set_autocast_enabled(device, not enabled)
        yield
    finally:
        for device, enabled in before:
            torch.set_autocast_enabled(device, enabled)
