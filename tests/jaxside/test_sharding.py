"""Calls on sharded arrays, in child processes: JAX reads the number of host devices once."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "sharding_script.py"
PARTS = ("explicit_axes", "what_is_refused", "batches", "batches_of_batches", "auto_axes", "checks")


@pytest.mark.parametrize("part", PARTS)
def test_sharding(part, run_python):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    call = f"import runpy, sys; sys.argv = ['', {part!r}]; runpy.run_path({str(SCRIPT)!r})"
    assert run_python(call, env=flags).strip() == "right"


def test_every_part_is_run():
    text = SCRIPT.read_text(encoding="utf-8")
    assert all(f"def {part}(" in text for part in PARTS)
