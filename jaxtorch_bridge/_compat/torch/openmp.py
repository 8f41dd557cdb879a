"""The OpenMP library that torch was linked with. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path

import torch


class OpenMP:
    """The OpenMP library that torch was linked with, whichever it is.

    ``torch.set_num_threads`` would do for one thread, but it also changes what threads that begin
    later take, the user's among them.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._set = library.omp_set_num_threads
        # MKL counts for itself once torch has given it a number in this thread.
        self._set_mkl = getattr(library, "MKL_Set_Num_Threads_Local", None)

    def limit(self, count: int | None = None) -> int:
        """Set how many threads torch uses in calls from this thread; None: leave it.

        Returns:
            How many it used before.
        """
        # Asking makes torch set its own number in a new thread, which would come later and undo
        # ours.
        before = torch.get_num_threads()
        if count is not None and count != before:
            self._set(ctypes.c_int(count))
            if self._set_mkl is not None:
                self._set_mkl(ctypes.c_int(count))
        return before


@functools.cache
def openmp() -> OpenMP | None:
    """Torch's OpenMP library, or None where torch has none."""
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return None
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        try:
            # Looked up from torch's own library, which leads to the OpenMP that it uses, not to
            # another one in the process.
            return OpenMP(ctypes.CDLL(str(folder / name)))
        except (OSError, AttributeError):
            continue
    return None
