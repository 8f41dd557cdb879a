"""One process of a run of several; test_processes.py starts them and reads what they wrote."""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from jax import export
from jax.experimental import multihost_utils
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxtorch_bridge import ffi_target_names, jax_callable, settings

ROOT = Path(__file__).resolve().parents[2]
SIZE, STEPS = 16, 4
STUCK_SECONDS = 500


# ---- Training: the same code for one process and for many ----------------------------------------


@jax_callable
def network(x, params):
    hidden = torch.tanh(torch.nn.functional.linear(x, params["w1"], params["b1"]))
    return torch.nn.functional.linear(hidden, params["w2"])


def mesh_of_all():
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def placed(mesh, spec, array):
    sharding = NamedSharding(mesh, spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def make_step(mesh, optimizer):
    def step(params, state, x, y):
        def loss_fn(params):
            return jax.lax.pmean(((network(x, params) - y) ** 2).mean(), "data")

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    specs = (P(), P(), P("data"), P("data"))
    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=specs, out_specs=(P(), P(), P())))


def start(mesh):
    """Parameters and data, the same in every process."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    params = {"w1": draw(5, 3), "b1": draw(5), "w2": draw(2, 5)}
    params = {name: placed(mesh, P(), value) for name, value in params.items()}
    return params, placed(mesh, P("data"), draw(SIZE, 3)), placed(mesh, P("data"), draw(SIZE, 2))


def train():
    """Losses and last parameters; also what XLA was given and what it made of it."""
    mesh = mesh_of_all()
    optimizer = optax.sgd(0.1, momentum=0.9)
    params, x, y = start(mesh)
    state = jax.tree.map(lambda leaf: placed(mesh, P(), np.asarray(leaf)), optimizer.init(params))
    step = make_step(mesh, optimizer)
    lowered = step.lower(params, state, x, y)
    losses = []
    for _ in range(STEPS):
        params, state, loss = step(params, state, x, y)
        losses.append(float(loss))
    text = lowered.as_text()
    return {
        "losses": losses,
        "params": {name: np.asarray(value).tolist() for name, value in params.items()},
        "devices": jax.device_count(),
        "ops": re.findall(r'op = "([^"]*)"', text),
        "lowered": digest(text),
        "compiled": digest(lowered.compile().as_text()),
    }


def digest(text):
    """Of a program without what it says of source files."""
    text = re.sub(r", metadata=\{[^}]*\}|loc\([^)]*\)|(?m:^#loc.*$)", "", text)
    return hashlib.sha256(text.encode()).hexdigest()


# ---- What goes wrong -----------------------------------------------------------------------------


def words_of(call, *arguments):
    """The failure of a call."""
    try:
        jax.block_until_ready(call(*arguments))
    except Exception as error:
        return {"error": str(error)}
    return {"error": None}


def on_shards(mesh, function):
    """Of every device's part, and then a sum over all: the collective that would hang."""
    return jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(function(x).sum(), "data"),
            mesh=mesh,
            in_specs=P("data"),
            out_specs=P(),
        )
    )


def missing(folder, rank, last):
    """A program from a file calls a function that the last process does not import."""
    mesh, path = mesh_of_all(), folder / "program.bin"
    x = placed(mesh, P("data"), np.ones((SIZE, 2), np.float32))
    if rank != last:
        from functions import scaled_sine

        program = on_shards(mesh, scaled_sine)
        names = ffi_target_names()
        allowed = [export.DisabledSafetyCheck.custom_call(name) for name in names]
        exported = export.export(program, disabled_checks=allowed)(x)
        if rank == 0:
            path.write_bytes(exported.serialize())
    multihost_utils.sync_global_devices("written")
    loaded = export.deserialize(bytearray(path.read_bytes()))
    first = words_of(jax.jit(loaded.call), x)
    # Once the last process has imported it too, the same program runs everywhere.
    importlib.import_module("functions")
    return {"first": first, "second": words_of(jax.jit(loaded.call), x)}


def differing(folder, rank, last):
    """The last process has another body of a function."""
    body = (lambda x: x * 2 + 1) if rank == last else (lambda x: x * 2)
    mesh = mesh_of_all()
    x = placed(mesh, P("data"), np.ones((SIZE, 2), np.float32))
    return words_of(on_shards(mesh, jax_callable(body, name="edited")), x)


def late(folder, rank, last):
    """The last process does not come to the program at all."""
    if rank == last:
        return {}
    mesh = mesh_of_all()
    x = placed(mesh, P("data"), np.ones((SIZE, 2), np.float32))
    settings.process_timeout_seconds = 2
    return words_of(on_shards(mesh, jax_callable(lambda x: x - 1, name="lonely")), x)


def alone(folder, rank, last):
    """What runs on a process's own devices waits for nobody."""
    if rank == last:
        return {}
    own = jax_callable(lambda x: x * 3, name="own")
    return {"value": float(jax.jit(own)(jnp.ones(())))}


def numbered(folder, rank, last):
    """Functions that look alike are told apart by number, in each process in its own order."""
    mesh = mesh_of_all()
    x = placed(mesh, P("data"), np.ones((SIZE, 2), np.float32))

    def made(offset):
        return jax_callable(lambda x: x + offset, name="alike")

    one, two = made(torch.ones(2)), made(torch.ones(2))
    shard = jax.ShapeDtypeStruct((SIZE // (last + 1), 2), jnp.float32)
    order = (two, one) if rank == last else (one, two)
    for function in order:
        function.plan(shard)
    return words_of(on_shards(mesh, one), x)


SCENES = {
    "missing": missing,
    "differing": differing,
    "numbered": numbered,
    "alone": alone,
    "late": late,
}


def main():
    sys.path.insert(0, str(ROOT / "examples"))
    import loopback

    parser = argparse.ArgumentParser()
    loopback.add_place(parser)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scenes", nargs="*")
    args = parser.parse_args()
    # Before the starter's patience ends: where it stands is worth knowing.
    faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
    with loopback.joined(args):
        found = {"train": train()}
        for name in args.scenes:
            found[name] = SCENES[name](args.folder, args.rank, args.count - 1)
            multihost_utils.sync_global_devices(name)
        (args.folder / f"{args.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
