"""Train a residual network from JAX: torch's layers and BatchNorm, optax's optimizer.

The network classifies scikit-learn's handwritten digits. The same training runs in plain torch,
from the same parameters and on the same batches, and both are compared.

    python examples/resnet.py --plots figures
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plots
import torch
from sklearn.datasets import load_digits
from torch import nn

from jaxtorch_bridge import from_module

BATCH_SIZE = 64
RATE, MOMENTUM = 0.05, 0.9
TEST_COUNT = 297
SEED = 0
# Rounding grows with every step that builds on it.
COMPARED_STEPS, MOST_GAP = 10, 1e-2


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return torch.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """For images of one channel; as many blocks as there are widths."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        inputs = (widths[0], *widths)
        self.blocks = nn.Sequential(
            *(
                Block(inputs[index], width, 1 if index == 0 else 2)
                for index, width in enumerate(widths)
            )
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class Data(NamedTuple):
    """Images (n, 1, 8, 8) float32 and labels (n,) int32."""

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


class Outcome(NamedTuple):
    """What one training gave."""

    losses: list[float]
    scores: np.ndarray


def read_data() -> Data:
    """The digits, shuffled; the last ones are for testing."""
    digits = load_digits()
    order = np.random.default_rng(SEED).permutation(len(digits.images))
    images = (digits.images[order, None] / 16 - 0.5).astype(np.float32)
    labels = digits.target[order].astype(np.int32)
    return Data(
        (images[:-TEST_COUNT], labels[:-TEST_COUNT]), (images[-TEST_COUNT:], labels[-TEST_COUNT:])
    )


def batches(data: Data, steps: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Batches in an order that both trainings share."""
    rng = np.random.default_rng(SEED)
    images, labels = data.train
    picks = [rng.choice(len(images), BATCH_SIZE, replace=False) for _ in range(steps)]
    return [(images[pick], labels[pick]) for pick in picks]


def train_in_jax(module: nn.Module, data: Data, steps: int) -> Outcome:
    """Parameters, BatchNorm's statistics and the optimizer's state are pytrees."""
    net = from_module(module)
    optimizer = optax.sgd(RATE, MOMENTUM)

    def loss(params, buffers, images, labels):
        scores, buffers = net.apply(params, images, buffers=buffers, train=True)
        losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
        return losses.mean(), buffers

    @jax.jit
    def step(params, buffers, state, images, labels):
        graded = jax.value_and_grad(loss, has_aux=True)
        (value, buffers), grads = graded(params, buffers, images, labels)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), buffers, state, value

    params, buffers, state = net.params, net.buffers, optimizer.init(net.params)
    losses = []
    for images, labels in batches(data, steps):
        params, buffers, state, value = step(params, buffers, state, images, labels)
        losses.append(float(value))
    scores, _ = net.apply(params, jnp.asarray(data.test[0]), buffers=buffers, train=False)
    return Outcome(losses, np.asarray(scores))


def train_in_torch(module: nn.Module, data: Data, steps: int) -> Outcome:
    """The same without JAX."""
    optimizer = torch.optim.SGD(module.parameters(), RATE, MOMENTUM)
    losses = []
    for images, labels in batches(data, steps):
        scores = module(torch.from_numpy(images))
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(labels).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    with torch.no_grad():
        scores = module.eval()(torch.from_numpy(data.test[0]))
    return Outcome(losses, scores.numpy())


def accuracy(outcome: Outcome, data: Data) -> float:
    """The part of the test images that are told right."""
    return float((outcome.scores.argmax(1) == data.test[1]).mean())


def main(argv: Sequence[str] | None = None) -> int:
    """Train on both sides, compare, and give back the exit code."""
    parser = argparse.ArgumentParser(description="Train a residual network from JAX.")
    parser.add_argument("--steps", type=int, default=150, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=16, help="of the first block")
    parser.add_argument("--least-accuracy", type=float, default=0.9, help="otherwise exit with 1")
    plots.add_option(parser)
    args = parser.parse_args(argv)
    torch.manual_seed(SEED)
    module = ResNet([args.width, 2 * args.width, 4 * args.width])
    data = read_data()
    in_jax = train_in_jax(module, data, args.steps)
    in_torch = train_in_torch(copy.deepcopy(module), data, args.steps)
    first = slice(min(args.steps, COMPARED_STEPS))
    gap = float(np.abs(np.subtract(in_jax.losses[first], in_torch.losses[first])).max())
    print(f"largest difference of the first losses: {gap:.1e}")
    print(f"test accuracy: JAX {accuracy(in_jax, data):.3f}, torch {accuracy(in_torch, data):.3f}")
    if args.plots:
        print(f"figure: {draw(in_jax, in_torch, data, args.plots)}")
    if gap > MOST_GAP or accuracy(in_jax, data) < args.least_accuracy:
        print("resnet: other losses than torch's, or too few right", file=sys.stderr)
        return 1
    return 0


def draw(in_jax: Outcome, in_torch: Outcome, data: Data, folder):
    """Both losses, and the first test images with what JAX's network takes them for."""
    figure, (left, right) = plots.panels(2)
    left.plot(in_jax.losses, label="JAX")
    left.plot(in_torch.losses, "k--", lw=1, label="torch")
    left.set(title="loss", xlabel="step", yscale="log")
    left.legend()
    right.imshow(np.hstack(data.test[0][:8, 0]), cmap="gray_r")
    told = ", ".join(str(label) for label in in_jax.scores[:8].argmax(1))
    right.set(title=f"told: {told}", xticks=[], yticks=[])
    return plots.save(figure, folder, "resnet")


if __name__ == "__main__":
    sys.exit(main())
