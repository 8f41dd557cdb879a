"""``output_shapes``: in which ways it may be written, and what it means for the results."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from ..call_site import caller_level
from ..calling.pytrees import trees
from ..calling.pytrees.trees import Structure
from ..dtypes import canonical_name
from ..errors import ArgumentError, BridgeWarning, OutputError
from ..planner.array_signature import OutputMeta
from ..torchside.closure.function_identity import name_of
from .example_arguments import Examples
from .transfer import dtype_t2j


@dataclass(frozen=True)
class Outputs:
    """What ``output_shapes`` declares.

    Attributes:
        structure: What the caller gets, whatever containers the torch function returns.
        metas: Shape and dtype of each leaf, as declared.
    """

    structure: Structure
    metas: tuple[OutputMeta, ...]

    def held(self, *, x64: bool) -> tuple[OutputMeta, ...]:
        """The same as JAX holds them."""
        return tuple(
            OutputMeta(meta.shape, canonical_name(meta.torch_dtype, x64=x64)) for meta in self.metas
        )

    def rebuild(self, result: Any) -> Any:
        """The results in the declared structure."""
        return trees.unflatten(self.structure, trees.flatten(result)[0])

    def with_shapes(self, shapes: Any) -> Outputs:
        """The same with other shapes, a tree like `shape_tree`."""
        sizes = [tuple(leaf.shape) for leaf in trees.flatten(shapes)[0]]
        dtypes = [meta.torch_dtype for meta in self.metas]
        return Outputs(self.structure, tuple(map(OutputMeta, sizes, dtypes)))

    def shape_tree(self) -> Any:
        """The declared tree with a ``ShapeDtypeStruct`` for each leaf."""
        shapes = [jax.ShapeDtypeStruct(meta.shape, meta.torch_dtype) for meta in self.metas]
        return trees.unflatten(self.structure, shapes)


def read_output_shapes(label: str, output_shapes: Any, examples: Examples | None) -> Outputs:
    """Understand ``output_shapes``.

    Args:
        label: The function's name, for messages.
        output_shapes: A pytree of ``torch.Size`` (the dtype is that of the floating examples), of
            anything with ``shape`` and ``dtype``, or, with a warning, of tuples and lists of int.
        examples: The example arguments, to take the dtype from.

    Raises:
        ArgumentError: A leaf is none of these, or a dtype is missing and the examples do not tell.
    """
    # Asked only where a shape has no dtype: otherwise examples may have several.
    default = _Default(label, output_shapes, examples)

    def one(leaf: Any) -> Any:
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            return jax.ShapeDtypeStruct(tuple(leaf.shape), dtype_t2j(leaf.dtype))
        # JAX takes it for one leaf; what is declared are its fields.
        if trees.is_open_dataclass(leaf):
            fields = {
                field.name: resolved(getattr(leaf, field.name))
                for field in dataclasses.fields(leaf)
                if field.init
            }
            return type(leaf)(**fields)
        shape = getattr(leaf, "shape", leaf)
        if not _is_shape(shape):
            raise ArgumentError(
                f"{label}, output_shapes: expected torch.Size, jax.ShapeDtypeStruct, arrays or "
                f"tensors in containers; got {leaf!r:.60} ({type(leaf).__name__})."
            )
        # A tuple of ints is a container of results as well; only `torch.Size` says which is meant.
        if not isinstance(shape, torch.Size):
            warnings.warn(
                f"{label}, output_shapes: took {shape!r} for one shape. Write torch.Size({shape!r})"
                " or a jax.ShapeDtypeStruct, which cannot be taken for a container.",
                BridgeWarning,
                stacklevel=caller_level(),
            )
        return jax.ShapeDtypeStruct(tuple(shape), default.dtype())

    def resolved(tree: Any) -> Any:
        return jax.tree.map(one, tree, is_leaf=_is_shape)

    leaves, structure = trees.flatten(resolved(output_shapes))
    return Outputs(
        structure,
        tuple(OutputMeta(tuple(leaf.shape), jnp.dtype(leaf.dtype).name) for leaf in leaves),
    )


def with_flat_results(
    function: Callable[..., Any], label: str, count: int, narrowed: tuple[str, ...] = ()
) -> Callable[..., Any]:
    """The torch function with its results taken out of their containers.

    Args:
        function: The torch function.
        label: Its name, for messages.
        count: How many results it must have.
        narrowed: While x64 is off, what JAX holds of each: ``int32`` of an ``int64``, so that
            such a result fits what was declared.
    """

    dtypes = tuple(getattr(torch, name) for name in narrowed)

    def run(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        leaves = [result] if isinstance(result, torch.Tensor) else trees.flatten(result)[0]
        if len(leaves) != count:
            raise OutputError(
                f"{label}: expected as many results as output_shapes declares, {count}; torch "
                f"returned {len(leaves)}. Declare what it returns, or leave output_shapes out.",
                callable_name=label,
            )
        for index, dtype in enumerate(dtypes):
            leaf = leaves[index]
            if isinstance(leaf, torch.Tensor) and leaf.dtype is not dtype:
                leaves[index] = _narrowed(leaf, dtype)
        return leaves[0] if count == 1 else tuple(leaves)

    # The function's own name and parameters are what messages show and keys are made of.
    run.__name__ = run.__qualname__ = name_of(function)
    is_module = isinstance(function, torch.nn.Module)
    # Not torch's own for torch's modules: what belongs to a library is not looked into.
    run.__module__ = "" if is_module else getattr(function, "__module__", None) or ""
    run.__wrapped__ = function.forward if is_module else function  # type: ignore[attr-defined]
    return run


def _narrowed(leaf: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The tensor in this dtype if that is what JAX holds of its own while x64 is off."""
    own = str(leaf.dtype).removeprefix("torch.")
    held = canonical_name(own, x64=False)
    return leaf.to(dtype) if held == str(dtype).removeprefix("torch.") else leaf


class _Default:
    """The dtype of shapes that come without one."""

    def __init__(self, label: str, output_shapes: Any, examples: Examples | None) -> None:
        self._label = label
        self._output_shapes = output_shapes
        self._examples = examples

    def dtype(self) -> np.dtype[Any]:
        """The one dtype of all floating examples and declared outputs."""
        found = [dtype for _, dtype in self._examples.leaves] if self._examples else []
        for leaf in jax.tree.leaves(self._output_shapes, is_leaf=_is_shape):
            if hasattr(leaf, "dtype"):
                found.append(dtype_t2j(leaf.dtype))
        floats = {dtype for dtype in found if jnp.issubdtype(dtype, jnp.floating)}
        if len(floats) != 1:
            got = ", ".join(sorted(dtype.name for dtype in floats)) or "none"
            raise ArgumentError(
                f"{self._label}, output_shapes: expected examples of one floating dtype, to take "
                f"the outputs' dtype from; got {got}. Write jax.ShapeDtypeStruct(shape, dtype)."
            )
        return floats.pop()


def _is_shape(value: Any) -> bool:
    # `()` counts: it is the shape of a scalar.
    return isinstance(value, (list, tuple)) and all(type(size) is int for size in value)
