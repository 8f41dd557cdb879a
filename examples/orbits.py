"""Integrate planets in `jax.lax.scan` with accelerations from torch, and differentiate through it.

The same leapfrog runs in plain torch, and both trajectories are compared.

    python examples/orbits.py --plots figures
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import plots
import torch

from jaxtorch_bridge import j2t, jax_callable

STEP = 0.01  # in years; distances are in astronomical units, masses in suns
GRAVITY = 4 * np.pi**2
# Both sides add the same float32 numbers in another order.
MOST_GAP = 1e-3


@jax_callable
def accelerations(places, masses):
    """Newton's, for bodies at (n, 2) of masses (n,)."""
    apart = places[None] - places[:, None]
    # A body is at no distance from itself, and does not pull itself.
    distance = (apart.square().sum(-1) + torch.eye(len(masses))).sqrt()
    return GRAVITY * (masses[None, :, None] * apart / distance[..., None] ** 3).sum(1)


def leapfrog(acceleration, places, velocities):
    """One step; the same line by line on either side."""
    velocities = velocities + 0.5 * STEP * acceleration(places)
    places = places + STEP * velocities
    return places, velocities + 0.5 * STEP * acceleration(places)


@partial(jax.jit, static_argnames="steps")
def orbits_in_jax(places, velocities, masses, steps):
    """Places after each step, (steps, n, 2)."""

    def step(state, _):
        state = leapfrog(lambda now: accelerations(now, masses), *state)
        return state, state[0]

    return jax.lax.scan(step, (places, velocities), length=steps)[1]


def orbits_in_torch(places, velocities, masses, steps):
    """The same in a loop of plain torch."""
    found = []
    for _ in range(steps):
        places, velocities = leapfrog(
            lambda now: accelerations.torch(now, masses), places, velocities
        )
        found.append(places)
    return torch.stack(found)


def solar_system() -> tuple[jax.Array, jax.Array, jax.Array]:
    """A sun and three planets on circles: places, velocities, masses."""
    radii = jnp.asarray([0.0, 0.72, 1.0, 1.52])
    speeds = jnp.where(radii > 0, jnp.sqrt(GRAVITY / jnp.maximum(radii, 0.1)), 0.0)
    zeros = jnp.zeros_like(radii)
    masses = jnp.asarray([1.0, 2.4e-6, 3.0e-6, 3.2e-7])
    return jnp.stack([radii, zeros], 1), jnp.stack([zeros, speeds], 1), masses


def last_distance(speed, start, steps):
    """How far from the sun the outermost planet is at the end, by its speed at the beginning."""
    places, velocities, masses = start
    path = orbits_in_jax(places, velocities.at[-1, 1].set(speed), masses, steps)
    return jnp.linalg.norm(path[-1, -1] - path[-1, 0])


def main(argv: Sequence[str] | None = None) -> int:
    """Integrate on both sides, compare, and give back the exit code."""
    parser = argparse.ArgumentParser(description="Planets in lax.scan, accelerations in torch.")
    parser.add_argument("--steps", type=int, default=300, help="default: %(default)s")
    plots.add_option(parser)
    args = parser.parse_args(argv)
    start = solar_system()
    path = orbits_in_jax(*start, args.steps)
    plain = orbits_in_torch(*(j2t(array) for array in start), args.steps).numpy()
    gap = float(np.abs(path - plain).max())
    speed = float(start[1][-1, 1])
    slope = float(jax.grad(last_distance)(speed, start, args.steps))
    nudge = 0.02
    around = [last_distance(speed + sign * nudge, start, args.steps) for sign in (1, -1)]
    difference = float(around[0] - around[1]) / (2 * nudge)
    print(f"largest difference from plain torch after {args.steps} steps: {gap:.1e} au")
    print(
        f"change of the last distance by the first speed: {slope:.3f} (quotient {difference:.3f})"
    )
    if args.plots:
        print(f"figure: {draw(np.asarray(path), plain, args.plots)}")
    wrong = gap > MOST_GAP or abs(slope - difference) > 0.05 * max(1.0, abs(difference))
    if wrong:
        print("orbits: JAX and torch do not agree", file=sys.stderr)
    return int(wrong)


def draw(path: np.ndarray, plain: np.ndarray, folder):
    """The orbits, and how far both sides drift apart."""
    figure, (left, right) = plots.panels(2)
    for body in range(path.shape[1]):
        left.plot(path[:, body, 0], path[:, body, 1], lw=1)
        left.plot(plain[::20, body, 0], plain[::20, body, 1], "k.", ms=2)
    left.set(aspect="equal", title="lax.scan (lines) and torch (dots)", xlabel="x, au", ylabel="y")
    apart = np.abs(path - plain).max((1, 2))
    right.semilogy(np.maximum(apart, 1e-9))
    right.set(title="largest difference", xlabel="step", ylabel="au")
    return plots.save(figure, folder, "orbits")


if __name__ == "__main__":
    sys.exit(main())
