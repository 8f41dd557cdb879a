"""The native module, told once which torch functions to call."""

from __future__ import annotations

import functools
from types import ModuleType

import torch

from ..._compat.torch.storages import has_memory, storage_use_count
from ..._compat.torch.tensors import dlpack_exchange_api, version_getter
from ..._compat.torch.thread_flags import direct_flags, function_modes, is_any_autocast_enabled
from .cuda_streams import enter_stream, leave_stream
from .failure_record import collect
from .native_library import native_library
from .private_pools import enter_pool, leave_pool


@functools.cache
def native() -> ModuleType:
    """The compiled module `jaxtorch_bridge._native`, ready for use.

    Raises:
        ImportError: It was not built, or torch is older than 2.11.
    """
    module = native_library()
    # By position, in the order of `Configure` in native_src/module.cc.
    module.configure(
        dlpack_exchange_api(),
        torch.Tensor,
        version_getter,
        torch.is_grad_enabled,
        is_any_autocast_enabled,
        function_modes,
        direct_flags(),
        storage_use_count,
        collect,
        has_memory,
        enter_stream,
        leave_stream,
        enter_pool,
        leave_pool,
    )
    return module


def op_keys() -> tuple[str, ...]:
    """Keys of the ops that are alive: those that a callable or an executable still needs."""
    return tuple(native().op_keys())
