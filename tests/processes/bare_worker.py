"""One process of a run in which the last one has no bridge; test_processes.py starts them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax import export
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 5


def exported(mesh, x):
    """A program with a torch call on each part, and a sum over all of them: what would hang."""
    from functions import scaled_sine

    from jaxtorch_bridge import settings

    settings.process_timeout_seconds = WAIT_SECONDS

    def total(x):
        return jax.lax.psum(scaled_sine(x).sum(), "data")

    program = jax.jit(jax.shard_map(total, mesh=mesh, in_specs=P("data"), out_specs=P()))
    allowed = [export.DisabledSafetyCheck.custom_call("jaxtorch_bridge.call")]
    return export.export(program, disabled_checks=allowed)(x).serialize()


def main():
    sys.path.insert(0, str(ROOT / "examples"))
    import loopback

    parser = argparse.ArgumentParser()
    loopback.add_place(parser)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    with loopback.joined(args):
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
        rows = np.ones((2 * args.count, 2), np.float32)
        sharding = NamedSharding(mesh, P("data"))
        x = jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])
        path = args.folder / "program.bin"
        if args.rank == 0:
            path.write_bytes(exported(mesh, x))
        multihost_utils.sync_global_devices("written")
        loaded = export.deserialize(bytearray(path.read_bytes()))
        error = ""
        try:
            jax.block_until_ready(jax.jit(loaded.call)(x))
        except Exception as caught:
            error = str(caught)
        found = {
            "error": error,
            "has_bridge": "jaxtorch_bridge" in sys.modules,
        }
        multihost_utils.sync_global_devices("tried")
        (args.folder / f"{args.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
