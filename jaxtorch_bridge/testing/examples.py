"""Example arguments: their arrays apart, and other arrays like them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ..calling.arguments.sort_leaves import is_array
from ..tolerances import tolerance_of
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


def gaps(found: Any, wanted: Any, *, scale: float = 0.0) -> np.ndarray[Any, np.dtype[np.float64]]:
    """How far apart each two values of two arrays of one shape are; all 0 if they agree.

    Args:
        found: The one.
        wanted: The other.
        scale: The least size that rounding is relative to, for what is left of greater numbers.
    """
    found, wanted = np.asarray(found), np.asarray(wanted)
    kind = np.complex128 if np.iscomplexobj(wanted) else np.float64
    a, b = found.astype(kind), wanted.astype(kind)
    same = found == wanted  # of integers, before they are rounded
    with np.errstate(invalid="ignore"):
        difference = np.where(same | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    # A NaN on one side only is as far apart as can be.
    difference = np.where(np.isnan(difference), np.inf, difference)
    tolerance = 0.0
    if jnp.issubdtype(wanted.dtype, jnp.inexact):
        size = np.abs(b)[np.isfinite(b)]
        tolerance = tolerance_of(str(wanted.dtype)) * float(size.max(initial=scale))
    elif difference.size:
        # Neighbouring integers beyond 2**53 are one as floats.
        difference = np.where(same, 0.0, np.maximum(difference, 1.0))
    return difference if np.any(difference > tolerance) else np.zeros_like(difference)
