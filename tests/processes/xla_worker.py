"""One process of a run of functions that XLA runs; test_processes.py starts them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np
import torch
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtorch_bridge import jax_callable

ROOT = Path(__file__).resolve().parents[2]
# One function for each kind of call that torch still makes: none, closed-over tensor and check, and
# a comparison.
HELD = torch.full((3,), 2.0)
FUNCTIONS = {
    "none": jax_callable(lambda x: torch.tanh(x) * 2, backend="xla"),
    "islands": jax_callable(
        lambda x: x * HELD + torch.linalg.inv(torch.eye(3) + 0 * x[0, 0]).sum(), backend="xla"
    ),
    "verified": jax_callable(lambda x: torch.tanh(x) * 3, backend="xla", verify=True),
}


def main():
    sys.path.insert(0, str(ROOT / "examples"))
    import loopback

    parser = argparse.ArgumentParser()
    loopback.add_place(parser)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    with loopback.joined(args):
        mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
        rows = np.arange(6.0 * args.count, dtype=np.float32).reshape(-1, 3) / 10
        sharding = NamedSharding(mesh, P("data"))
        x = jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])
        found = {}
        for name, function in FUNCTIONS.items():
            program = jax.jit(
                jax.shard_map(function, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
            )
            before = multihost_utils.process_allgather(program(x), tiled=True)
            # In every process, between two calls of one program.
            HELD.fill_(7.0)
            after = multihost_utils.process_allgather(program(x), tiled=True)
            HELD.fill_(2.0)
            found[name] = [before.tolist(), after.tolist()]
        (args.folder / f"{args.rank}.json").write_text(json.dumps({"rows": rows.tolist(), **found}))


if __name__ == "__main__":
    main()
