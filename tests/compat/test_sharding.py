"""Over 8 devices: under shard_map, and by out_specs. In child processes, since JAX reads the number
of host devices once."""

from __future__ import annotations

from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharding_script.py")
# The last check of the first group sets a mesh for the rest of its process.
GROUPS = [
    ["data_parallel_training", "locks_over_devices", "forward_over_shards_with_wrapping_inside"],
    ["out_specs_call_once_a_shard", "out_specs_of_trees", "refusals"],
]


@pytest.mark.parametrize("group", GROUPS, ids=["shard_map", "out_specs"])
def test_over_eight_devices(group, run_python):
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    call = f"import runpy, sys; sys.argv = ['', *{group}]; "
    call += f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    assert run_python(call, env=flags).splitlines() == [f"{name} right" for name in group]
