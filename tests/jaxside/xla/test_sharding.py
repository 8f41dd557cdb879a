"""``backend="xla"`` on arrays that are cut along the axes of a mesh, as any JAX code."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharding_script.py")


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_meshes(kind, run_python):
    out = run_python(
        f"import runpy, sys\nsys.argv = ['script', {kind!r}]\nrunpy.run_path({str(SCRIPT)!r})",
        env={"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
    )
    assert out.strip().endswith("fine")
