"""What the example arguments of ``torch2jax`` say: structure, shapes, dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from .. import transfer
from ..calling.arguments.sort_leaves import is_array
from ..calling.pytrees import trees
from ..calling.pytrees.trees import Structure
from ..dtypes import canonical_name
from ..errors import ArgumentError

ShapeAndDtype = tuple[tuple[int, ...], np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples, without their values unless all are known.

    Attributes:
        label: The function's name, for messages.
        structure: Of ``(args, kwargs)``.
        paths: Of each leaf, for messages.
        leaves: Shape and JAX dtype of each; 64-bit ones as they were given.
        torch_dtypes: What torch is to see of each: a tensor's own dtype; None: what JAX holds.
        positional: Leaf counts of the positional arguments.
        values: ``(args, kwargs)`` if every leaf has a value to run on, otherwise None.
    """

    label: str
    structure: Structure
    paths: tuple[str, ...]
    leaves: tuple[ShapeAndDtype, ...]
    torch_dtypes: tuple[str | None, ...]
    positional: tuple[int, ...]
    values: tuple[Any, Any] | None

    # Kept, since every call is compared with one of these two.
    @cached_property
    def narrow(self) -> tuple[ShapeAndDtype, ...]:
        """The leaves as JAX holds them while x64 is off."""
        return self._canonical(False)

    @cached_property
    def wide(self) -> tuple[ShapeAndDtype, ...]:
        """The leaves as JAX holds them while x64 is on."""
        return self._canonical(True)

    def _canonical(self, x64: bool) -> tuple[ShapeAndDtype, ...]:
        return tuple(
            (shape, jnp.dtype(canonical_name(dtype.name, x64=x64))) for shape, dtype in self.leaves
        )


def read_examples(label: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Examples:
    """Look at examples.

    Args:
        label: The function's name, for messages.
        args: Pytrees of tensors, arrays (tracers too) or anything with ``shape`` and ``dtype``.
        kwargs: Likewise, by name.

    Raises:
        ArgumentError: A leaf has no shape and dtype.
        DtypeError: A tensor has a dtype that JAX does not have.
    """
    # As calls are flattened: their structure is compared with this one.
    leaves, structure = trees.flatten((tuple(args), kwargs))
    named = [
        trees.path_text(path, root)
        for root, part in (("args", tuple(args)), ("kwargs", kwargs))
        for path, _ in trees.flatten_with_paths(part)
    ]
    for path, leaf in zip(named, leaves, strict=True):
        if not (hasattr(leaf, "shape") and hasattr(leaf, "dtype")):
            raise ArgumentError(
                f"{label}, example `{path}`: expected a tensor, an array or a ShapeDtypeStruct; "
                f"got {leaf!r:.60} ({type(leaf).__name__}). Bind values that are no arrays with "
                "functools.partial, or use jax_callable, which takes them."
            )
    tensors = [isinstance(leaf, torch.Tensor) for leaf in leaves]
    return Examples(
        label,
        structure,
        tuple(named),
        tuple((tuple(leaf.shape), _dtype_of(leaf)) for leaf in leaves),
        tuple(
            str(leaf.dtype).removeprefix("torch.") if is_tensor else None
            for leaf, is_tensor in zip(leaves, tensors, strict=True)
        ),
        tuple(len(trees.flatten(arg)[0]) for arg in args),
        (tuple(args), kwargs) if all(map(_has_values, leaves)) else None,
    )


def shapes_of(tree: Any) -> Any:
    """The same tree with shapes and dtypes in place of arrays and Python numbers."""

    def one(leaf: Any) -> Any:
        if isinstance(leaf, (bool, int, float, complex)) or is_array(leaf):
            aval = jax.typeof(leaf)
            return jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        return leaf

    return jax.tree.map(one, tree)


def _dtype_of(leaf: Any) -> np.dtype[Any]:
    if isinstance(leaf.dtype, torch.dtype):
        return transfer.dtype_t2j(leaf.dtype)
    found: np.dtype[Any] = jnp.dtype(leaf.dtype)
    return found


def _has_values(leaf: Any) -> bool:
    if isinstance(leaf, torch.Tensor):
        return not leaf.is_meta
    return isinstance(leaf, (np.ndarray, jax.Array)) and not isinstance(leaf, jax.core.Tracer)
