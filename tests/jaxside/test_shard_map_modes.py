"""Every derivative, vmap, scan and checkpoint around and within shard_map, on meshes of every kind.

JAX reads the number of host devices once, and a fresh interpreter costs seconds: each test runs a
whole group of shard_map_checks.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("shard_map_checks.py")
FLAGS = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("check_vma", [True, False], ids=["checked", "unchecked"])
@pytest.mark.parametrize("group", ["one axis", "inside", "two axes"])
def test_agrees_with_the_twin_in_jnp(group, check_vma, run_python):
    run = f"import runpy; runpy.run_path({str(CHECKS)!r})['GROUPS'][{group!r}]({check_vma})"
    assert run_python(f"{run}; print('right')", env=FLAGS).strip() == "right"
