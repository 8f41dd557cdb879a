"""Gradients through the bridge against torch's own, and against finite differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ...calling.call_planner import Planned
from ...testing.examples import gaps
from . import problems
from .both_sides import Run, as_jax
from .cases import Path
from .planned_transforms import Promises
from .values import direction_like

# Of single precision: small enough for the curvature, large enough against rounding.
_STEP = 1e-2
_TOLERANCE = 0.05
_ROUNDING = 1e-5


def compare_gradients(run: Run, planned: Planned, found: Promises) -> None:
    """Compare the gradient of all inputs that have one, for cotangents of all outputs."""
    paths = run.differentiable
    outs = [i for i, sig in enumerate(planned.plan.outputs) if sig.differentiable]
    if not paths or not outs:
        return
    _, pull = jax.vjp(
        lambda moved: run.jax_results(run.subject.callable, moved, outs),
        {path: run.arrays[path] for path in paths},
    )
    results = run.torch_result()
    cotangents = [direction_like(as_jax(results[i]), seed) for seed, i in enumerate(outs)]
    # In the outputs' own dtypes, rounded once, for both sides.
    given = [
        jnp.asarray(one, dtype=planned.plan.outputs[i].dtype)
        for one, i in zip(cotangents, outs, strict=True)
    ]
    (by_path,) = pull(given)
    gradients = [by_path[path] for path in paths]
    weights = [_tensor_of(one, results[i]) for one, i in zip(given, outs, strict=True)]
    wanted = _torch_gradients(run, paths, outs, weights)
    if wanted is None:
        found.remarks.append(("numeric", "torch's own autograd fails; finite differences decide"))
    else:
        for path, mine, theirs in zip(paths, gradients, wanted, strict=True):
            difference = float(gaps(mine, theirs).max(initial=0.0))
            if difference:
                expected = "the gradient that torch gives"
                _note(run, found, path, expected, f"one that is off by {difference:.3g}")
                return
    words = "gradients are those of torch" if wanted is not None else ""
    checked = _compare_differences(run, paths, outs, cotangents, gradients, found)
    if checked:
        words += " and of finite differences" if words else "gradients are finite differences'"
    if words and not found.problems:
        found.remarks.append(("numeric", words))


def _torch_gradients(
    run: Run, paths: Sequence[Path], outs: Sequence[int], cotangents: Sequence[torch.Tensor]
) -> list[Any] | None:
    """In JAX's convention, of which torch's is the conjugate; None if autograd fails."""
    tensors = {path: tensor.clone() for path, tensor in run.tensors.items()}
    try:
        found = run.torch_gradients(tensors, paths, outs, [one.conj() for one in cotangents])
    except RuntimeError:
        return None
    return [
        jnp.zeros_like(run.arrays[path]) if one is None else as_jax(one.conj())
        for path, one in zip(paths, found, strict=True)
    ]


def _tensor_of(array: Any, like: torch.Tensor) -> torch.Tensor:
    kind = np.complex128 if np.iscomplexobj(array) else np.float64
    return torch.from_numpy(np.asarray(array).astype(kind)).to(like.dtype)


def _compare_differences(
    run: Run,
    paths: Sequence[Path],
    outs: Sequence[int],
    cotangents: Sequence[np.ndarray],
    gradients: Sequence[Any],
    found: Promises,
) -> bool:
    """Whether central differences could be compared, one input at a time."""
    compared = False
    for number, (path, gradient) in enumerate(zip(paths, gradients, strict=True)):
        if run.tensors[path].dtype not in (torch.float32, torch.float64):
            continue
        # A seed of its own: the cotangents have those from 0 on.
        direction = direction_like(gradient, 100 + number)
        slopes = _slopes(run, path, direction, outs, cotangents)
        slope = float(np.sum(np.asarray(gradient, np.float64) * direction))
        if not slopes.is_smooth:
            continue
        compared = True
        if slopes.differ_from(slope):
            expected = "the slope of the function"
            text = (
                f"{slope:.4g} where finite differences give {slopes.fine:.4g}: the function "
                "detaches something or has a backward of its own; if that is meant, say "
                "`differentiable: false`"
            )
            _note(run, found, path, expected, text)
    return compared


@dataclass(frozen=True)
class Slopes:
    """Finite differences of a function along a line.

    Attributes:
        coarse: The central one, with two steps.
        fine: The same with one.
        coarse_bend: How far those to both sides are apart, with two steps.
        fine_bend: The same with one.
        rounding: What may be wrong with each.
    """

    coarse: float
    fine: float
    coarse_bend: float
    fine_bend: float
    rounding: float

    @property
    def _scale(self) -> float:
        return max(abs(self.coarse), abs(self.fine))

    @property
    def is_smooth(self) -> bool:
        """Whether there is a slope to compare; there is none at a kink."""
        if not np.isfinite(self._scale + self.coarse_bend + self.fine_bend):
            return False
        unsure = _TOLERANCE * self._scale + self.rounding
        if abs(self.coarse - self.fine) > unsure:
            return False
        # Half the step bends a smooth function half as much. A kink right here bends it as much
        # as before, and the central differences agree on a slope that is the mean of two.
        return self.fine_bend <= unsure or self.fine_bend <= 0.6 * self.coarse_bend

    def differ_from(self, slope: float) -> bool:
        """Whether ``slope`` is not that of the function."""
        scale = max(self._scale, abs(slope))
        return abs(self.fine - slope) > 2 * _TOLERANCE * scale + self.rounding


def slopes_of(sums: Mapping[int, float], size: float) -> Slopes:
    """The slopes from values at -2 to 2 steps, of which each sums up terms of ``size``."""
    central = {n: (sums[n] - sums[-n]) / (2 * n * _STEP) for n in (1, 2)}
    bend = {n: abs(sums[n] - 2 * sums[0] + sums[-n]) / (n * _STEP) for n in (1, 2)}
    return Slopes(central[2], central[1], bend[2], bend[1], _ROUNDING * size / _STEP)


def _slopes(
    run: Run,
    path: Path,
    direction: np.ndarray,
    outs: Sequence[int],
    cotangents: Sequence[np.ndarray],
) -> Slopes:
    """The slopes of the outputs' sum, weighted by the cotangents, as one input moves."""
    sums = {}
    size = 0.0
    for steps in (-2, -1, 0, 1, 2):
        # In double precision, and rounded once to what the function takes.
        moved = run.tensors[path].double() + steps * _STEP * torch.from_numpy(direction)
        tensors = {**run.tensors, path: moved.to(run.tensors[path].dtype)}
        with torch.no_grad():
            results = run.torch_result(tensors)
        kinds = [np.asarray(results[i].detach().to(_wide(results[i])).cpu()) for i in outs]
        terms = [np.real(value * one) for value, one in zip(kinds, cotangents, strict=True)]
        sums[steps] = sum(float(np.sum(one)) for one in terms)
        size = max(size, sum(float(np.sum(np.abs(one))) for one in terms))
    return slopes_of(sums, size)


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64


def _note(run: Run, found: Promises, path: Path, expected: str, text: str) -> None:
    spec = run.subject.spec
    words = f"{text}, with {run.case.words(spec)}"
    found.problems.append(problems.problem_at(spec, f"inputs.{'.'.join(path)}", expected, words))
