"""Kernels of CuPy that wait before they write: who reads too early finds what was there before."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import torch

# Each thread waits by the clock of its multiprocessor. Of arrays of 2 ** 16 elements all blocks are
# on a GPU at once, so that a kernel waits once.
SOURCE = r"""
extern "C" __global__
void late_add(const float* x, float* y, float value, long long cycles, int size) {
  const long long start = clock64();
  while (clock64() - start < cycles) {}
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < size) y[i] = x[i] + value;
}

extern "C" __global__
void late_fill(float* y, float value, long long cycles, int size) {
  const long long start = clock64();
  while (clock64() - start < cycles) {}
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < size) y[i] = value;
}
"""
_THREADS = 256


class LateKernels:
    """For float32 arrays of one axis.

    Args:
        cupy: The module.
        milliseconds: How long each waits.
    """

    def __init__(self, cupy: ModuleType, milliseconds: float) -> None:
        self.cupy: Any = cupy
        kilohertz = self.cupy.cuda.Device().attributes["ClockRate"]
        self._cycles = int(milliseconds * kilohertz)
        module = self.cupy.RawModule(code=SOURCE)
        self._add, self._fill = module.get_function("late_add"), module.get_function("late_fill")

    def stream(self) -> Any:
        """Torch's current stream, as CuPy's."""
        current = torch.cuda.current_stream()
        return self.cupy.cuda.ExternalStream(current.cuda_stream, current.device_index)

    def add(
        self, x: torch.Tensor, value: float, *, out: torch.Tensor | None = None, stream: Any = None
    ) -> torch.Tensor:
        """``x + value``, late, on torch's current stream or another one."""
        found = torch.empty_like(x) if out is None else out
        self._launch(self._add, stream, x, found, value)
        return found

    def fill(self, array: Any, value: float, *, stream: Any = None) -> None:
        """Write a value everywhere, late."""
        self._launch(self._fill, stream, array, value)

    def _launch(self, kernel: Any, stream: Any, *args: Any) -> None:
        cupy = self.cupy
        # Not by DLPack, which would have streams wait for each other: that is what is tried.
        given = [np.float32(one) if isinstance(one, float) else _memory(cupy, one) for one in args]
        size = int(given[0].size)
        blocks = (size + _THREADS - 1) // _THREADS
        with stream or self.stream():
            kernel((blocks,), (_THREADS,), (*given, np.int64(self._cycles), np.int32(size)))


def _memory(cupy: Any, array: Any) -> Any:
    if not isinstance(array, torch.Tensor):
        return array
    pointer, size = array.data_ptr(), array.numel()
    memory = cupy.cuda.UnownedMemory(pointer, 4 * size, array, array.device.index)
    return cupy.ndarray((size,), cupy.float32, cupy.cuda.MemoryPointer(memory, 0))
