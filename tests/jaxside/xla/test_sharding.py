"""``backend="xla"`` on arrays that are cut along the axes of a mesh, as any JAX code."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_on(run_python, devices, script, kind):
    path = str(HERE / f"{script}.py")
    out = run_python(
        f"import runpy, sys\nsys.argv = ['script', {kind!r}]\nrunpy.run_path({path!r})",
        env={"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"},
    )
    assert out.strip().endswith("fine")


@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_meshes(kind, run_python):
    run_on(run_python, 4, "sharding_script", kind)


@pytest.mark.parametrize("devices", [2, 4])
@pytest.mark.parametrize("kind", ["auto", "explicit"])
def test_islands(kind, devices, run_python):
    run_on(run_python, devices, "island_sharding_script", kind)


@pytest.mark.parametrize("family", ["matrices", "others"])
def test_batches_along_explicit_axes(family, run_python):
    run_on(run_python, 4, "explicit_layouts_script", family)
