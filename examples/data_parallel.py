"""Train a PyTorch network on many devices of one process, beside the same training on one.

The devices are parts of this machine's CPU here; on a machine with several GPUs, leave out the
flag that makes them.

    python examples/data_parallel.py --devices 2
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import digits
import jax
import numpy as np
from digits import BATCH_SIZE, COMPARED_STEPS, JaxTraining, Record
from parallel import ParallelTraining, mesh_of_all_devices
from rich.console import Console

# The loss of the same batch differs only by the order in which its parts are added.
MOST_GAP = 1e-3


@dataclass(frozen=True)
class Report:
    """Both trainings, and the plan of the bridge's calls.

    Attributes:
        many: On all devices.
        one: On one device.
        plan: Of the torch call that each device makes.
    """

    many: Record
    one: Record
    plan: str


def train(steps: int, after_step: Callable[[], None] = lambda: None) -> Report:
    """Train on all devices and on one, from the same parameters and on the same batches."""
    rng = np.random.default_rng(digits.SEED)
    data, params = digits.read_digits(), digits.initial_params(rng)
    on_many, on_one = ParallelTraining(params, mesh_of_all_devices()), JaxTraining(params)
    many, one = Record(), Record()
    for batch in digits.batches(data.train, steps, rng):
        # In turns: whatever else runs here slows both alike.
        digits.timed_step(on_many, batch, many)
        digits.timed_step(on_one, batch, one)
        after_step()
    many.accuracy = digits.accuracy(on_many, data.test)
    one.accuracy = digits.accuracy(on_one, data.test)
    part = data.train[0][: BATCH_SIZE // jax.device_count()]
    return Report(many, one, digits.digits_cnn.explain(part, on_one.state.params))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Train a PyTorch network on many devices.")
    parser.add_argument("--devices", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=300, help="updates (default: %(default)s)")
    parser.add_argument("--least-accuracy", type=float, default=0.95, help="otherwise exit with 1")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error("--steps must be at least 1")
    if args.devices < 1 or BATCH_SIZE % args.devices:
        parser.error(f"--devices must divide the batch of {BATCH_SIZE} images")
    return args


def make_devices(count: int) -> None:
    """Let JAX see the CPU as ``count`` devices. It reads this once, when it first needs any."""
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={count}"


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print what came of it, and give back the exit code."""
    args = parse_args(argv)
    make_devices(args.devices)
    if jax.device_count() != args.devices:
        print(f"data_parallel: JAX has {jax.device_count()} devices already", file=sys.stderr)
        return 1
    console = Console(quiet=args.quiet)
    with digits.progress_bar(console) as progress:
        task = progress.add_task("training", total=args.steps)
        report = train(args.steps, after_step=lambda: progress.advance(task))
    columns = {f"{args.devices} devices": report.many, "one device": report.one}
    console.print(digits.results_table(columns))
    gap = digits.loss_gap(report.many, report.one)
    first = min(args.steps, COMPARED_STEPS)
    console.print(f"Largest difference of losses in the first {first} steps: {gap:.1e}")
    console.print("\nThe plan of the call that each device makes:")
    console.print(report.plan, markup=False, highlight=False, soft_wrap=True)
    if gap > MOST_GAP or report.many.accuracy < args.least_accuracy:
        found = f"accuracy {report.many.accuracy:.4f}, difference of losses {gap:.1e}"
        wanted = f"at least {args.least_accuracy} and at most {MOST_GAP}"
        print(f"data_parallel: {found}; expected {wanted}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
