"""Shared pieces of the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run a script in a fresh interpreter: for what JAX or torch read once at import."""

    def run(script: str, *, env: dict[str, str] | None = None, check: bool = True) -> str:
        import os

        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:jaxtorch_bridge", "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            cwd=ROOT,
            timeout=300,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done.stdout + done.stderr

    return run
