"""The examples on many devices and in many processes, on a few steps.

As commands, in processes of their own: they decide how many devices JAX sees.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SMALL = ["--steps", "25", "--least-accuracy", "0.5"]


def command(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "XLA_FLAGS": ""},
        timeout=900,
    )


def test_training_on_four_devices_is_that_on_one() -> None:
    done = command("data_parallel.py", "--devices", "4", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("4 devices", "one device", "test accuracy", "time per step, median"):
        assert part in done.stdout
    assert "images                      float32[16, 1, 8, 8]" in done.stdout
    assert "tape: the function runs once, and torch keeps" in done.stdout


def test_training_in_two_processes_is_that_in_one() -> None:
    done = command("multihost.py", "--processes", "2", *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("2 processes", "one process", "test accuracy", "Largest difference of losses"):
        assert part in done.stdout


def test_a_process_that_fails_ends_the_others() -> None:
    done = command("multihost.py", "--processes", "2", "--fail", "1", *SMALL)
    assert done.returncode == 1
    assert "process 1 failed" in done.stderr
    assert "RuntimeError: this process was told to fail" in done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("data_parallel.py", ["--devices", "3"], "must divide the batch of 64"),
        ("multihost.py", ["--processes", "0"], "must divide the batch of 64"),
    ],
)
def test_what_cannot_be_divided_is_refused(script: str, arguments: list[str], words: str) -> None:
    done = command(script, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
