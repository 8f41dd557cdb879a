"""Torch's current CUDA stream, cheaply, and addresses of what sets it.

`current_stream` was tried on torch 2.11.0 with CUDA 13.0. `stream_functions` was not yet run on a
GPU: its functions of torch are declared by torch 2.13.0 (torch/csrc/inductor/aoti_torch/c/shim.h),
those of CUDA by CUDA 13.0's runtime.
"""

from __future__ import annotations

import ctypes
import functools

import torch

# Torch's, then CUDA's, in the order of native_src/stream_functions.h.
_NAMES = (
    *("aoti_torch_get_current_cuda_stream", "aoti_torch_create_cuda_stream_guard"),
    *("aoti_torch_delete_cuda_stream_guard", "cudaStreamQuery", "cudaEventCreateWithFlags"),
    *("cudaEventRecord", "cudaStreamWaitEvent"),
)


def current_stream(device: int) -> torch.cuda.Stream:
    """As `torch.cuda.current_stream`, which makes an object each time."""
    return _stream(*torch._C._cuda_getCurrentStream(device))


@functools.lru_cache(maxsize=256)
def _stream(stream: int, device: int, kind: int) -> torch.cuda.Stream:
    found: torch.cuda.Stream = torch.cuda.Stream(
        stream_id=stream, device_index=device, device_type=kind
    )
    return found


def stream_functions(library: ctypes.CDLL | None = None) -> tuple[int, ...] | None:
    """Addresses of the C functions that put torch on a CUDA stream and order two of them.

    Args:
        library: Where to look; torch's own by default, which leads to those that it needs.

    Returns:
        Those of `StreamFunctions` in native_src/stream_functions.h; None where one is missing.
    """
    found = []
    for name in _NAMES:
        try:
            function = (library or ctypes.CDLL(torch._C.__file__))[name]
        except AttributeError:
            return None
        found.append(ctypes.cast(function, ctypes.c_void_p).value or 0)
    return tuple(found)


def current_stream_by(functions: tuple[int, ...], device: int) -> int | None:
    """What the first of `stream_functions` says is torch's current stream; None if it fails."""
    ask = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p))
    stream = ctypes.c_void_p()
    failed = ask(functions[0])(device, ctypes.byref(stream))
    return None if failed else stream.value or 0
