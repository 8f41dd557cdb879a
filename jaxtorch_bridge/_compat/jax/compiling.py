"""Which threads wait for XLA to compile. Tried on JAX 0.10.0 and 0.10.2.

``jax._src.compiler.backend_compile_and_load`` is where JAX hands a program to XLA; its thread waits
there without Python's lock.
"""

from __future__ import annotations

import sys
from types import FrameType

import jax._src.compiler as compiler

_FILE = compiler.__file__
_NAME = "backend_compile_and_load"


def compilation_of(thread: int) -> int | None:
    """A number for what a thread has XLA compile now; None if it does something else."""
    frame: FrameType | None = sys._current_frames().get(thread)
    while frame is not None and frame.f_code.co_filename == _FILE:
        if frame.f_code.co_name == _NAME:
            return id(frame)
        frame = frame.f_back
    return None
