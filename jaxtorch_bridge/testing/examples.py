"""Example arguments: their arrays apart, and other arrays like them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ..arguments import is_array
from ..transfer import t2j


class Examples:
    """The arguments of one call.

    Attributes:
        arrays: The array leaves.
        arguments: For each of them, which positional argument it belongs to.
    """

    def __init__(self, examples: Sequence[Any]) -> None:
        leaves, self._structure = jax.tree.flatten(tuple(examples))
        self._template = [t2j(x) if isinstance(x, torch.Tensor) else x for x in leaves]
        self._places = [i for i, leaf in enumerate(self._template) if is_array(leaf)]
        self.arrays = [jnp.asarray(self._template[place]) for place in self._places]
        numbered = [
            number for number, example in enumerate(examples) for _ in jax.tree.leaves(example)
        ]
        self.arguments = [numbered[place] for place in self._places]

    def with_arrays(self, arrays: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments with other arrays in them."""
        leaves = list(self._template)
        for place, array in zip(self._places, arrays, strict=True):
            leaves[place] = array
        found: tuple[Any, ...] = jax.tree.unflatten(self._structure, leaves)
        return found


def like(array: Any, number: int) -> Any:
    """The ``number``th array like an example: its values in another order, floats scaled as well.

    So indices stay valid, and what is positive stays positive.
    """
    rolled = jnp.roll(array.reshape(-1), number).reshape(array.shape)
    if jnp.issubdtype(array.dtype, jnp.inexact):
        rolled = (rolled * (1 + number / 8)).astype(array.dtype)
    return rolled


def tolerance_of(dtype: Any) -> float:
    """Relative and absolute: what sums in another order may differ by."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return 0.0
    wide = {"float64": 1e-9, "complex128": 1e-9, "float32": 1e-4, "complex64": 1e-4}
    return wide.get(str(dtype), 5e-2)


def gap(found: Any, wanted: Any) -> float:
    """The greatest difference between two arrays of one shape; 0 where they agree."""
    tolerance = tolerance_of(wanted.dtype)
    kind = np.complex128 if np.iscomplexobj(wanted) else np.float64
    a, b = np.asarray(found).astype(kind), np.asarray(wanted).astype(kind)
    if np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True):
        return 0.0
    difference = np.abs(a - b)
    # A NaN on one side only is as far apart as can be.
    return float(np.max(np.where(np.isnan(difference), np.inf, difference)))
