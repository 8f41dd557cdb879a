"""What is timed: one call of a contract's function and its gradient, by torch and by JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch

from ...calling.jax_callable import JaxCallable
from ...calling.pytrees import trees
from ..check.both_sides import Run
from ..check.cases import Path
from ..check.values import direction_like

Call = Callable[[], Any]


class Timed:
    """One call with values, to be timed forward and backward.

    Args:
        run: The call.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        spec = run.subject.spec
        depth = spec.vjp_depth
        self._moving: list[Path] = [
            path
            for path, leaf in spec.input_leaves()
            if path in run.arrays and leaf.differentiable and _is_float(run.arrays[path])
        ]
        results = run.torch_result()
        self._outs = [
            index
            for index, (one, (_, leaf)) in enumerate(
                zip(results, spec.output_leaves(), strict=False)
            )
            if one.is_floating_point() and leaf.differentiable
        ]
        # Writes to arguments take copies on the torch side, which the gradient would go through.
        self.has_gradient = bool(self._moving and self._outs and depth != 0 and not spec.mutates)
        self._cotangents = [
            direction_like(results[index].detach().float().numpy(), index) for index in self._outs
        ]

    def torch_forward(self) -> Call:
        """Torch alone."""

        def call() -> Any:
            with torch.no_grad():
                return self._run.torch_result()

        return call

    def torch_gradient(self) -> Call:
        """Torch's own record, and back."""

        def call() -> Any:
            tensors = dict(self._run.tensors)
            for path in self._moving:
                tensors[path] = tensors[path].detach().requires_grad_()
            results = self._run.torch_result(tensors)
            outs = [results[index] for index in self._outs]
            given = [
                torch.from_numpy(one).to(out.dtype)
                for one, out in zip(self._cotangents, outs, strict=True)
            ]
            return torch.autograd.grad(
                outs, [tensors[path] for path in self._moving], given, allow_unused=True
            )

        return call

    def jax_forward(self, callable_: JaxCallable[..., Any]) -> Call:
        """A jitted call."""
        args, kwargs = self._run.jax_arguments()
        leaves, structure = jax.tree.flatten((args, kwargs))
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]

        def program(arrays: list[Any]) -> Any:
            whole = list(leaves)
            for place, array in zip(places, arrays, strict=True):
                whole[place] = array
            given, named = jax.tree.unflatten(structure, whole)
            return callable_(*given, **named)

        jitted, arrays = jax.jit(program), [leaves[place] for place in places]
        return lambda: jax.block_until_ready(jitted(arrays))

    def jax_gradient(self, callable_: JaxCallable[..., Any]) -> Call:
        """A jitted forward and pullback."""
        run = self._run

        def forward(moved: list[Any]) -> list[Any]:
            arrays = {**run.arrays, **dict(zip(self._moving, moved, strict=True))}
            args, kwargs = Run(run.subject, run.case, arrays, run.tensors).jax_arguments()
            results = trees.flatten(callable_(*args, **kwargs))[0]
            return [results[index] for index in self._outs]

        def program(moved: list[Any], cotangents: list[Any]) -> Any:
            results, pull = jax.vjp(forward, moved)
            pairs = zip(cotangents, results, strict=True)
            return results, pull([jnp.asarray(one, result.dtype) for one, result in pairs])

        jitted = jax.jit(program)
        moved = [run.arrays[path] for path in self._moving]
        cotangents = [jnp.asarray(one) for one in self._cotangents]
        return lambda: jax.block_until_ready(jitted(moved, cotangents))


def _is_float(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.floating))
