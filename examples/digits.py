"""Train a PyTorch network from JAX, on scikit-learn's images of handwritten digits.

The network is a torch function. JAX differentiates it inside a jitted step and optax updates its
parameters. The same training in plain torch runs beside it, batch by batch, so that losses and
times can be compared.

    python examples/digits.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from jaxtorch_bridge import jax_callable, tree_j2t

SPEC = Path(__file__).resolve().parent.parent / "specs" / "digits_cnn.yaml"
SEED = 0
BATCH_SIZE = 64
LEARNING_RATE = 2e-3
LEAST_ACCURACY = 0.97
# Rounding differs between the two sides and grows from step to step: compare early losses only.
COMPARED_STEPS = 10

# The network below takes either: JAX's arrays from JAX code, torch's tensors from torch code.
Array: TypeAlias = Any  # jax.Array | torch.Tensor
Params: TypeAlias = dict[str, dict[str, Array]]
Batch: TypeAlias = tuple[np.ndarray, np.ndarray]


# ---- The network: PyTorch, with a contract that names its dimensions -----------------------------


@jax_callable(spec=SPEC)
def digits_cnn(images: Array, params: Params) -> Array:
    """Scores ``(batch, classes)`` for images ``(batch, 1, height, width)``."""
    functional = torch.nn.functional
    x = functional.relu(functional.conv2d(images, **params["conv1"], padding=1))
    x = functional.relu(functional.conv2d(x, **params["conv2"], padding=1))
    x = functional.max_pool2d(x, 2).flatten(1)
    x = functional.relu(functional.linear(x, **params["dense1"]))
    return functional.linear(x, **params["dense2"])


def initial_params(rng: np.random.Generator) -> Params:
    """Parameters in numpy, from which both trainings start."""

    def layer(*shape: int) -> dict[str, Array]:
        fan_in = int(np.prod(shape[1:]))
        weight = rng.normal(0.0, np.sqrt(2.0 / fan_in), shape)
        return {"weight": weight.astype(np.float32), "bias": np.zeros(shape[0], np.float32)}

    return {
        "conv1": layer(16, 1, 3, 3),
        "conv2": layer(32, 16, 3, 3),
        "dense1": layer(64, 32 * 4 * 4),
        "dense2": layer(10, 64),
    }


# ---- The data ------------------------------------------------------------------------------------


class Digits(NamedTuple):
    """The real images that scikit-learn ships, in two parts."""

    train: Batch
    test: Batch


def read_digits() -> Digits:
    """Images ``(n, 1, 8, 8)`` with values from 0 to 1, and labels from 0 to 9."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    train_x, test_x, train_y, test_y = train_test_split(
        images, labels.astype(np.int32), test_size=0.2, random_state=SEED, stratify=labels
    )
    return Digits((train_x, train_y), (test_x, test_y))


def batches(data: Batch, steps: int, rng: np.random.Generator) -> Iterator[Batch]:
    """``steps`` batches of one size: shuffled anew in each epoch, the short rest dropped."""
    images, labels = data
    per_epoch = len(labels) // BATCH_SIZE
    order = np.empty(0, np.int64)
    for step in range(steps):
        place = step % per_epoch
        if place == 0:
            order = rng.permutation(len(labels))
        chosen = order[place * BATCH_SIZE : (place + 1) * BATCH_SIZE]
        yield images[chosen], labels[chosen]


# ---- Training from JAX ---------------------------------------------------------------------------

optimizer = optax.adam(LEARNING_RATE)


class TrainState(NamedTuple):
    """What one step hands to the next."""

    params: Params
    optimizer_state: optax.OptState


def loss_fn(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross entropy: the scores come from torch, the rest is JAX."""
    scores = digits_cnn(images, params)
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


# The old state is donated: XLA writes the new one into the same memory.
@jax.jit(donate_argnames="state")
def train_step(
    state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[TrainState, jax.Array]:
    """One update of the parameters, and the loss before it."""
    loss, grads = jax.value_and_grad(loss_fn)(state.params, images, labels)
    updates, optimizer_state = optimizer.update(grads, state.optimizer_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), optimizer_state), loss


class JaxTraining:
    """The training in JAX, which calls torch through the bridge."""

    def __init__(self, params: Params) -> None:
        params = jax.tree.map(jnp.array, params)
        self.state = TrainState(params, optimizer.init(params))

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        # JAX returns before the work is done; a time is honest only once all of it is.
        self.state, loss = jax.block_until_ready(train_step(self.state, images, labels))
        return float(loss)

    def predict(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(digits_cnn(jnp.asarray(images), self.state.params).argmax(axis=1))


# ---- The same training in plain torch ------------------------------------------------------------


class TorchTraining:
    """The training in torch alone: same network, same optimiser, no JAX."""

    def __init__(self, params: Params) -> None:
        # Copies, because torch's optimiser updates its parameters in place.
        self.params = tree_j2t(params, copy=True)
        leaves = [leaf for layer in self.params.values() for leaf in layer.values()]
        for leaf in leaves:
            leaf.requires_grad_()
        self.optimizer = torch.optim.Adam(leaves, lr=LEARNING_RATE)

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        # Given tensors, `digits_cnn` is the torch function itself, with no bridge between.
        scores = digits_cnn(torch.from_numpy(images), self.params)
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels).long())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def predict(self, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return digits_cnn(torch.from_numpy(images), self.params).argmax(dim=1).numpy()


# ---- Both, side by side --------------------------------------------------------------------------


class Training(Protocol):
    """What both trainings can do."""

    def step(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Train on one batch, and give back its loss."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The most likely label of each image."""


@dataclass
class Record:
    """What one training did.

    Attributes:
        losses: The loss of each step.
        seconds: The time of each step. The first one holds planning and compiling.
        accuracy: The share of right answers on the test images, after the last step.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    accuracy: float = 0.0

    def median_ms(self) -> float:
        """The time of a usual step, in milliseconds."""
        return 1e3 * statistics.median(self.seconds[1:] or self.seconds)


@dataclass(frozen=True)
class Report:
    """Both trainings, and the plan of the bridge's calls."""

    jax: Record
    torch: Record
    plan: str

    def loss_gap(self) -> float:
        """The largest difference between the two losses in the first steps."""
        return loss_gap(self.jax, self.torch)


def loss_gap(one: Record, other: Record) -> float:
    """The largest difference between the losses of two trainings in their first steps."""
    early = slice(COMPARED_STEPS)
    return max(abs(a - b) for a, b in zip(one.losses[early], other.losses[early], strict=True))


def timed_step(training: Training, batch: Batch, record: Record) -> None:
    """Train on one batch, and write down its loss and its time."""
    start = time.perf_counter()
    loss = training.step(*batch)
    record.seconds.append(time.perf_counter() - start)
    record.losses.append(loss)


def train(steps: int, after_step: Callable[[], None] = lambda: None) -> Report:
    """Train on both sides, from the same parameters and on the same batches."""
    rng = np.random.default_rng(SEED)
    digits, params = read_digits(), initial_params(rng)
    with_jax, with_torch = JaxTraining(params), TorchTraining(params)
    jax_record, torch_record = Record(), Record()
    turns: list[tuple[Training, Record]] = [(with_jax, jax_record), (with_torch, torch_record)]
    for batch in batches(digits.train, steps, rng):
        # In turns, and swapping who goes first: whatever else runs here slows both alike.
        for training, record in turns:
            timed_step(training, batch, record)
        turns.reverse()
        after_step()
    for training, record in turns:
        record.accuracy = accuracy(training, digits.test)
    plan = digits_cnn.explain(digits.train[0][:BATCH_SIZE], with_jax.state.params)
    return Report(jax_record, torch_record, plan)


def accuracy(training: Training, data: Batch) -> float:
    """The share of images that get the right label."""
    images, labels = data
    return float((training.predict(images) == labels).mean())


# ---- The command ---------------------------------------------------------------------------------


def results_table(records: Mapping[str, Record]) -> Table:
    """Trainings side by side, under their names."""
    columns = tuple(records.values())
    steps = len(columns[0].losses)
    table = Table(title=f"Handwritten digits, {steps} steps of {BATCH_SIZE} images")
    table.add_column("")
    for name in records:
        table.add_column(name, justify="right")
    table.add_row("test accuracy", *(f"{one.accuracy:.4f}" for one in columns))
    table.add_row("loss, last step", *(f"{one.losses[-1]:.4f}" for one in columns))
    table.add_row("time per step, median", *(f"{one.median_ms():.2f} ms" for one in columns))
    table.add_row("first step", *(f"{1e3 * one.seconds[0]:.0f} ms" for one in columns))
    return table


def progress_bar(console: Console) -> Progress:
    """How far the training is; silent where the console is."""
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=console.quiet)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description="Train a PyTorch network from JAX.")
    parser.add_argument("--steps", type=int, default=600, help="updates (default: %(default)s)")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    args = parser.parse_args(argv)
    if args.steps < 1:
        parser.error("--steps must be at least 1")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Train, print what came of it, and give back the exit code."""
    args = parse_args(argv)
    console = Console(quiet=args.quiet)
    with progress_bar(console) as progress:
        task = progress.add_task("training", total=args.steps)
        report = train(args.steps, after_step=lambda: progress.advance(task))
    console.print(results_table({"JAX + bridge": report.jax, "plain torch": report.torch}))
    first = min(args.steps, COMPARED_STEPS)
    console.print(
        f"Largest difference of losses in the first {first} steps: {report.loss_gap():.1e}"
    )
    console.print("\nThe plan of the calls from JAX:")
    console.print(report.plan, markup=False, highlight=False, soft_wrap=True)
    if report.jax.accuracy < LEAST_ACCURACY:
        found = f"test accuracy {report.jax.accuracy:.4f} after {args.steps} steps"
        print(f"digits: {found}, expected at least {LEAST_ACCURACY}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
