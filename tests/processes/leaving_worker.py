"""One process of a run of which only the first reads results; test_processes.py starts them."""

from __future__ import annotations

import argparse
import atexit
import json
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import torch
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

ROOT = Path(__file__).resolve().parents[2]
STEPS, SIZE = 10, 256

calls = []
found = {}
leaving = threading.Event()


def write(path):
    path.write_text(json.dumps({**found, "calls": len(calls)}))


def main():
    sys.path.insert(0, str(ROOT / "examples"))
    import loopback

    parser = argparse.ArgumentParser()
    loopback.add_place(parser)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    # It runs when all else has been waited for: it is registered before the library is imported.
    atexit.register(write, args.folder / f"{args.rank}.json")
    from jaxtorch_bridge import jax_callable

    atexit.register(leaving.set)

    @jax_callable
    def half(x):
        if type(x) is torch.Tensor:
            if jax.process_index() > 0:
                leaving.wait()
            calls.append(1)
        return x / 2

    def total(x):
        # With a product, which JAX does not run on the thread that dispatches it.
        ones = jax.numpy.ones((SIZE, SIZE)) / SIZE
        return jax.lax.fori_loop(0, STEPS, lambda _, x: jax.lax.psum(half(x @ ones), "data"), x)

    with loopback.joined(args):
        mesh = jax.make_mesh((args.count,), ("data",))
        parts = P("data")
        per_part = jax.shard_map(total, mesh=mesh, in_specs=parts, out_specs=parts, check_vma=False)
        rows = np.ones((args.count, SIZE), np.float32)
        sharding = NamedSharding(mesh, parts)
        x = jax.make_array_from_callback(rows.shape, sharding, lambda index: rows[index])
        y = jax.jit(per_part)(x)
        if args.rank == 0:
            found["value"] = float(y.addressable_shards[0].data[0, 0])


if __name__ == "__main__":
    main()
