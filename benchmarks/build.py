"""How long the native module takes to build from scratch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Row, Table, less_than

SOURCE = Path(__file__).resolve().parent.parent / "native_src"
REPEATS = 2


def measure() -> list[Table]:
    """Configure and compile in an empty folder."""
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    cmake, ninja = shutil.which("cmake", path=tools), shutil.which("ninja", path=tools)
    title = "Build: native module, cmake + ninja, Release, empty folder"
    if cmake is None or ninja is None:
        return [Table(title, "s", [], ["Left out: cmake or ninja is not there."])]
    runs = [_build(cmake, ninja) for _ in range(REPEATS)]
    configure, compile_, total = (min(times) for times in zip(*runs, strict=True))
    rows = [
        Row("configure", configure),
        Row("compile and link", compile_),
        Row("both", total, targets=[less_than(total, 30, "s")]),
    ]
    return [Table(title, "s (min)", rows)]


def _build(cmake: str, ninja: str) -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        _run(
            cmake,
            "-S",
            str(SOURCE),
            "-B",
            folder,
            "-G",
            "Ninja",
            "-DCMAKE_BUILD_TYPE=Release",
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            f"-DPython_EXECUTABLE={sys.executable}",
        )
        middle = time.perf_counter()
        _run(cmake, "--build", folder)
        end = time.perf_counter()
    return middle - start, end - middle, end - start


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
