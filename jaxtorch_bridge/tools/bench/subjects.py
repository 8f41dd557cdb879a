"""What is timed: one call of a contract's function and its gradient, by torch and by JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ...calling.jax_callable import JaxCallable
from ..check.both_sides import Run
from ..check.cases import Path
from ..check.values import direction_like

Call = Callable[[], Any]


class Timed:
    """One call with values, to be timed forward and backward.

    Attributes:
        has_gradient: Whether torch alone finds one.
    """

    def __init__(self, run: Run) -> None:
        """Runs the function once, and its gradient.

        Args:
            run: The call.

        Raises:
            Exception: Whatever the function raises on these values.
        """
        self._run = run
        args, kwargs = run.jax_arguments()
        outputs = run.subject.callable.with_backend("eager").plan(*args, **kwargs).outputs
        self._paths = [path for path in run.differentiable if run.tensors[path].is_floating_point()]
        self._outs = [i for i, sig in enumerate(outputs) if sig.differentiable]
        made = [direction_like(np.empty(outputs[i].shape), i) for i in self._outs]
        self._cotangents = [
            jnp.asarray(one, outputs[i].dtype) for one, i in zip(made, self._outs, strict=True)
        ]
        self._weights = [
            torch.from_numpy(one).to(getattr(torch, outputs[i].torch_dtype))
            for one, i in zip(made, self._outs, strict=True)
        ]
        self._all = range(len(run.torch_result()))
        self.has_gradient = run.subject.spec.vjp_depth != 0 and self._torch_has_one()

    def _torch_has_one(self) -> bool:
        try:
            return any(one is not None for one in self.torch_gradient()())
        except RuntimeError:
            return False

    def torch_forward(self) -> Call:
        """Torch alone."""

        def call() -> Any:
            with torch.no_grad():
                return self._run.torch_result()

        return call

    def torch_gradient(self) -> Call:
        """Torch's own record, and back."""

        def call() -> Any:
            # Tensors of their own over the same memory, which require no grad yet.
            tensors = {path: tensor.detach() for path, tensor in self._run.tensors.items()}
            return self._run.torch_gradients(tensors, self._paths, self._outs, self._weights)

        return call

    def jax_forward(self, callable_: JaxCallable[..., Any]) -> Call:
        """A jitted call."""
        run = self._run
        jitted = jax.jit(lambda arrays: run.jax_results(callable_, arrays, self._all))
        return lambda: jax.block_until_ready(jitted(run.arrays))

    def jax_gradient(self, callable_: JaxCallable[..., Any]) -> Call:
        """A jitted forward and pullback."""
        run = self._run

        def forward(moved: dict[Path, Any]) -> list[Any]:
            return run.jax_results(callable_, moved, self._outs)

        def program(moved: dict[Path, Any], cotangents: list[Any]) -> Any:
            results, pull = jax.vjp(forward, moved)
            return results, pull(cotangents)

        jitted = jax.jit(program)
        moved = {path: run.arrays[path] for path in self._paths}
        return lambda: jax.block_until_ready(jitted(moved, self._cotangents))
