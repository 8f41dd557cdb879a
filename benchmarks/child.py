"""Measurements that need a process of their own."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def run_child(script: str, *arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a family's file as a program; its last line of output is JSON.

    Args:
        script: The file.
        arguments: Its arguments.
        env: Environment variables beside those of this process.
    """
    done = subprocess.run(
        [sys.executable, script, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **(env or {})},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def resident_mib(field: str = "VmRSS") -> float:
    """Memory of this process by Linux's own account: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def reset_peak() -> None:
    """Start ``VmHWM`` again from what is resident now, with nothing free to grow into unseen."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
