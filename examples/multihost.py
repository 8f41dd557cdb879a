"""Train a PyTorch network in several processes, beside the same training in one.

On a cluster there would be one process on each host, started by the scheduler, and
`jax.distributed.initialize()` would find the others. Here this script starts them itself, on the
loopback device; the training knows no difference.

    python examples/multihost.py --processes 2
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import digits
import jax
import loopback
import numpy as np
from digits import BATCH_SIZE, COMPARED_STEPS, JaxTraining, Record
from loopback import Finished
from parallel import ParallelTraining, mesh_of_all_devices
from rich.console import Console

MOST_GAP = 1e-3
# Enough for the slowest of machines: whatever is stuck is stopped then.
TIMEOUT_SECONDS = 600.0


def train(training: ParallelTraining | JaxTraining, steps: int) -> Record:
    """The same steps in every process: all draw the same batches."""
    rng = np.random.default_rng(digits.SEED)
    data = digits.read_digits()
    digits.initial_params(rng)  # drawn before the batches, as everywhere
    record = Record()
    for batch in digits.batches(data.train, steps, rng):
        digits.timed_step(training, batch, record)
    record.accuracy = digits.accuracy(training, data.test)
    return record


def first_params() -> digits.Params:
    """What every training starts from."""
    return digits.initial_params(np.random.default_rng(digits.SEED))


# ---- A worker ------------------------------------------------------------------------------------


def work(args: argparse.Namespace) -> None:
    """Train as one process of the run, and leave what came of it in the folder."""
    training = ParallelTraining(first_params(), mesh_of_all_devices())
    if args.rank == args.fail:
        train(training, 1)
        raise RuntimeError("this process was told to fail")
    record = train(training, args.steps)
    leaves = jax.tree.leaves(training.state.params)
    values = b"".join(np.asarray(leaf.addressable_data(0)).tobytes() for leaf in leaves)
    found = {**dataclasses.asdict(record), "params": hashlib.sha256(values).hexdigest()}
    (args.folder / f"{args.rank}.json").write_text(json.dumps(found))


# ---- The command ---------------------------------------------------------------------------------


def train_in_processes(args: argparse.Namespace, folder: Path) -> list[Finished]:
    """Start the workers and wait for them."""
    arguments = ["--steps", str(args.steps), "--folder", str(folder)]
    if args.fail is not None:
        arguments += ["--fail", str(args.fail)]
    script = Path(__file__).resolve()
    return loopback.run_workers(script, args.processes, arguments, timeout_seconds=TIMEOUT_SECONDS)


def read_records(folder: Path, count: int) -> list[Record]:
    """What the workers did.

    Raises:
        ValueError: They do not have the same parameters in the end.
    """
    found = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]
    if len({one.pop("params") for one in found}) != 1:
        raise ValueError("the processes ended with different parameters")
    return [Record(**one) for one in found]


def report_failure(ends: Sequence[Finished]) -> None:
    """Say which workers failed by themselves, and their last words."""
    for end in ends:
        if end.code and not end.stopped:
            lines = "\n".join(end.output.splitlines()[-20:])
            print(f"multihost: process {end.rank} failed:\n{lines}", file=sys.stderr)
    stopped = [str(end.rank) for end in ends if end.stopped]
    if stopped:
        print(f"multihost: stopped process {', '.join(stopped)}", file=sys.stderr)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line, and those that a worker gets."""
    parser = argparse.ArgumentParser(description="Train a PyTorch network in several processes.")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=300, help="updates (default: %(default)s)")
    parser.add_argument("--least-accuracy", type=float, default=0.95, help="otherwise exit with 1")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--fail", type=int, metavar="RANK", help="let one process fail, to see it")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    loopback.add_place(parser)
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error("--steps must be at least 1")
    if args.processes < 1 or BATCH_SIZE % args.processes:
        parser.error(f"--processes must divide the batch of {BATCH_SIZE} images")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Train in many processes and then in this one, and print both."""
    args = parse_args(argv)
    if args.rank is not None:
        with loopback.joined(args):
            work(args)
        return 0
    console = Console(quiet=args.quiet)
    with tempfile.TemporaryDirectory() as folder:
        with console.status(f"training in {args.processes} processes"):
            ends = train_in_processes(args, Path(folder))
        if any(end.code for end in ends):
            report_failure(ends)
            return 1
        records = read_records(Path(folder), args.processes)
    with console.status("training in one process"):
        single = train(JaxTraining(first_params()), args.steps)
    # The losses are the same in every process, and the times nearly so.
    many = records[0]
    columns = {f"{args.processes} processes": many, "one process": single}
    console.print(digits.results_table(columns))
    gap = digits.loss_gap(many, single)
    first = min(args.steps, COMPARED_STEPS)
    console.print(f"Largest difference of losses in the first {first} steps: {gap:.1e}")
    if gap > MOST_GAP or many.accuracy < args.least_accuracy:
        found = f"accuracy {many.accuracy:.4f}, difference of losses {gap:.1e}"
        wanted = f"at least {args.least_accuracy} and at most {MOST_GAP}"
        print(f"multihost: {found}; expected {wanted}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
