"""A neural potential in torch: forces by `jax.grad`, phonons by `jax.hessian`.

A small network learns the energy of a pair of atoms from Lennard-Jones's formula, trained from
JAX. A periodic chain of atoms then has that energy; forces and the matrix of force constants are
compared with torch's own, and the phonons with those of the formula.

    python examples/phonons.py --plots figures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import plots
import torch

from jaxtorch_bridge import JaxModule, from_module, j2t

ATOMS = 8
SPACING = 1.12  # near the formula's minimum for neighbours alone
MOST_GAP = 1e-4  # relative, between JAX's derivatives and torch's
SEED = 0


class Pair(torch.nn.Module):
    """The energy of two atoms by their distance."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, 32, 32, 1)
        layers: list[torch.nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [torch.nn.Linear(inputs, outputs), torch.nn.Tanh()]
        self.layers = torch.nn.Sequential(*layers[:-1])

    def forward(self, distance: torch.Tensor) -> torch.Tensor:
        # Inputs of order one, and zero beyond some neighbours.
        near = self.layers(4 * (distance[..., None] - 1.4))[..., 0]
        return near * torch.exp(-((distance / 2.0) ** 4))


class Chain(torch.nn.Module):
    """The energy of a periodic chain by its atoms' displacements, in units of the well's depth."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, displacements: torch.Tensor) -> torch.Tensor:
        energy = displacements.new_zeros(())
        for neighbour in (1, 2):
            apart = SPACING * neighbour + displacements.roll(-neighbour) - displacements
            energy = energy + self.pair(apart).sum()
        return energy


def formula(distance):
    """Lennard-Jones, in units of the well's depth."""
    return 4 * (distance**-12 - distance**-6)


class Learned(NamedTuple):
    """The chain with trained parameters, and the losses on the way."""

    net: JaxModule
    params: dict
    losses: list[float]


def learn(steps: int) -> Learned:
    """Fit the network to the formula around the distances of two neighbours."""
    torch.manual_seed(SEED)
    chain = Chain()
    net, pair = from_module(chain), from_module(chain.pair)
    distances = jnp.concatenate([jnp.linspace(0.98, 1.3, 96), jnp.linspace(2.0, 2.5, 32)])
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def loss(params):
        return ((pair.apply(params, distances) - formula(distances)) ** 2).mean()

    def step(state, _):
        value, grads = jax.value_and_grad(loss)(state[0])
        updates, rest = optimizer.update(grads, state[1])
        return (optax.apply_updates(state[0], updates), rest), value

    start = (pair.params, optimizer.init(pair.params))
    (params, _), losses = jax.jit(lambda: jax.lax.scan(step, start, length=steps))()
    return Learned(net, {"pair": params}, losses.tolist())


def frequencies(constants: np.ndarray) -> np.ndarray:
    """Of the chain's waves, by wave number: the square root of the force constants' transform."""
    squares = np.fft.fft(constants.mean(0)).real[: ATOMS // 2 + 1]
    return np.sign(squares) * np.sqrt(np.abs(squares))


def circulant(matrix: np.ndarray) -> np.ndarray:
    """Each atom's row, begun at the atom itself."""
    return np.stack([np.roll(row, -index) for index, row in enumerate(matrix)])


def formula_constants() -> np.ndarray:
    """What the formula says of the force constants."""

    def energy(displacements):
        parts = []
        for neighbour in (1, 2):
            apart = SPACING * neighbour + jnp.roll(displacements, -neighbour) - displacements
            parts.append(formula(apart).sum())
        return sum(parts)

    return np.asarray(jax.hessian(energy)(jnp.zeros(ATOMS)))


def in_torch(learned: Learned, displacements: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Forces and force constants by plain torch."""
    chain = Chain()
    chain.load_state_dict(learned.net.dump(learned.params))
    at = j2t(displacements, copy=True).requires_grad_()
    (gradient,) = torch.autograd.grad(chain(at), at)
    constants = torch.autograd.functional.hessian(chain, torch.zeros(ATOMS))
    return -gradient.numpy(), constants.numpy()


def relative(found, expected) -> float:
    """The largest difference by the largest number."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def main(argv: Sequence[str] | None = None) -> int:
    """Train, differentiate on both sides, compare, and give back the exit code."""
    parser = argparse.ArgumentParser(description="Phonons of a neural potential.")
    parser.add_argument("--steps", type=int, default=1000, help="default: %(default)s")
    plots.add_option(parser)
    args = parser.parse_args(argv)
    learned = learn(args.steps)
    net, params = learned.net, learned.params
    displacements = 0.03 * jax.random.normal(jax.random.key(SEED), (ATOMS,))
    forces = -jax.jit(jax.grad(lambda at: net.apply(params, at)))(displacements)
    constants = jax.jit(jax.hessian(lambda at: net.apply(params, at)))(jnp.zeros(ATOMS))
    torch_forces, torch_constants = in_torch(learned, displacements)
    gaps = relative(forces, torch_forces), relative(constants, torch_constants)
    waves = frequencies(circulant(np.asarray(constants)))
    expected = frequencies(circulant(formula_constants()))
    print(f"loss after {args.steps} steps: {learned.losses[-1]:.1e}")
    print(f"difference from plain torch: forces {gaps[0]:.1e}, force constants {gaps[1]:.1e}")
    print(f"highest phonon: network {waves[-1]:.2f}, formula {expected[-1]:.2f}")
    if args.plots:
        print(f"figure: {draw(forces, torch_forces, waves, expected, args.plots)}")
    if max(gaps) > MOST_GAP:
        print("phonons: JAX and torch do not agree", file=sys.stderr)
        return 1
    return 0


def draw(forces, torch_forces, waves, expected, folder):
    """Forces of both sides, and the phonons beside the formula's."""
    figure, (left, right) = plots.panels(2)
    left.plot(np.asarray(forces), "o", label="jax.grad")
    left.plot(torch_forces, "k+", label="torch")
    left.set(title="forces", xlabel="atom", ylabel="energy / distance")
    left.legend()
    wave_numbers = np.arange(len(waves)) / ATOMS
    right.plot(wave_numbers, waves, "o-", label="jax.hessian of the network")
    right.plot(wave_numbers, expected, "k--", label="formula")
    right.set(title="phonons", xlabel="wave number", ylabel="frequency")
    right.legend()
    return plots.save(figure, folder, "phonons")


if __name__ == "__main__":
    sys.exit(main())
