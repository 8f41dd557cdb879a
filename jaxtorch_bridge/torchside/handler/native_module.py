"""The native module, told once which torch functions to call."""

from __future__ import annotations

import functools
from types import ModuleType

import torch

from ..._compat.torch import internals as compat
from ..._compat.torch.thread_flags import direct_flags
from .cuda_streams import enter_stream, leave_stream
from .failure_record import collect
from .native_library import native_library


@functools.cache
def native() -> ModuleType:
    """The compiled module `jaxtorch_bridge._native`, ready for use.

    Raises:
        ImportError: It was not built, or torch is older than 2.11.
    """
    module = native_library()
    # By position, in the order of `Configure` in native_src/module.cc.
    module.configure(
        compat.dlpack_exchange_api(),
        torch.Tensor,
        compat.version_getter,
        torch.is_grad_enabled,
        compat.is_any_autocast_enabled,
        compat.function_modes,
        direct_flags(),
        compat.storage_use_count,
        collect,
        compat.has_memory,
        enter_stream,
        leave_stream,
    )
    return module


def op_keys() -> tuple[str, ...]:
    """Keys of the ops that are alive: those that a callable or an executable still needs."""
    return tuple(native().op_keys())
