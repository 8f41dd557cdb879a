"""Sort the leaves of a call into arrays, tensors and static values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import jax
import numpy as np
import torch

from ..._compat.jax.arrays import ArrayImpl
from ...errors import ArgumentError
from ...planner.build_plan import ArrayArgument, static_mapping
from ..pytrees import trees
from ..pytrees.trees import Structure
from .mutated_arguments import Mutated

# Stands for an array among the hashable leaves of a call's signature.
ARRAY = "<array>"
# Marks the signature of a call that has a random key.
KEYED = "<keyed>"


class ResultsLike(Protocol):
    """What takes the place of a function's results; see `bounded_results`."""

    def result(self, result: Any, tensors: Sequence[torch.Tensor], behind: int = 0) -> Any:
        """The result of a call, from what the function returned and was called with."""

    def around(self, result: Any, behind: int) -> Any:
        """The same for what stands for a result, without tensors."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """The leaves of one call.

    Attributes:
        structure: How the leaves make up ``(args, kwargs)``.
        template: The leaves, with None where an array stands.
        positions: Where the arrays stand.
        arrays: The arrays, in order.
        key: Hashable: structure, and each leaf as `ARRAY` or (type, value).
        tensors: Number of torch tensors; then nothing else is filled in.
        traced: Whether any array is a tracer.
        keyed: Whether a random key stands behind the arrays, which has no position.
        mutated: What of it the function writes to.
        copied: Which of its arrays the function gets as copies of its own.
        tell: Called with those that a run has written to.
        bounded: What pads its results.
    """

    structure: Structure
    template: list[Any]
    positions: tuple[int, ...]
    arrays: list[Any]
    key: tuple[Any, ...]
    tensors: int
    traced: bool
    keyed: bool = False
    mutated: Mutated | None = None
    copied: tuple[int, ...] = ()
    tell: Callable[[list[int]], None] | None = None
    bounded: ResultsLike | None = None

    def with_key(self, key: Any) -> Leaves:
        """The same call with a random key."""
        traced = self.traced or isinstance(key, jax.core.Tracer)
        arrays = [*self.arrays, key]
        return replace(self, arrays=arrays, key=(*self.key, KEYED), traced=traced, keyed=True)


def quick_key(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], list[Any]] | None:
    """A key and the arrays of an everyday eager call, or None for any other.

    Everyday: JAX arrays and plain Python scalars in JAX's own pytrees. Such a call need not be
    sorted again; `sort_leaves` has done so when its key was first seen.
    """
    flat, treedef = jax.tree_util.tree_flatten((args, kwargs))
    key: list[Any] = [treedef]
    arrays = []
    for leaf in flat:
        kind = type(leaf)
        if kind is ArrayImpl:
            arrays.append(leaf)
            key.append(ARRAY)
        elif kind is bool or kind is int or kind is str:
            # With its type: 1 and True are equal, but not the same to torch.
            key.append(kind)
            key.append(leaf)
        elif kind is float:
            # As text: 0.0 equals -0.0, and a NaN not even itself, so that its call would be planned
            # each time.
            key.append(leaf.hex())
        else:
            return None
    return tuple(key), arrays


def sort_leaves(label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Leaves:
    """Sort what a caller passed.

    Raises:
        ArgumentError: Arrays of both sides in one call, or a leaf that can be no static value.
    """
    flat, structure = trees.flatten((args, kwargs))
    leaves = sort_flat(label, flat, structure)
    if leaves.tensors and leaves.arrays:
        raise ArgumentError(_mixed_message(label, args, kwargs))
    return leaves


def sort_flat(label: str, flat: Sequence[Any], structure: Structure) -> Leaves:
    """Sort the leaves of a call whose structure is known.

    Raises:
        ArgumentError: A leaf can be no static value.
    """
    arrays: list[Any] = []
    positions: list[int] = []
    key: list[Any] = [structure]
    template: list[Any] = []
    tensors = 0
    traced = False
    for index, leaf in enumerate(flat):
        kind = type(leaf)
        if kind is ArrayImpl or is_array(leaf):
            arrays.append(leaf)
            positions.append(index)
            key.append(ARRAY)
            template.append(None)
            traced = traced or (kind is not ArrayImpl and isinstance(leaf, jax.core.Tracer))
        elif isinstance(leaf, torch.Tensor):
            # Only counted: a call on tensors is handed to the function as it came.
            tensors += 1
        else:
            key.append(_static_key(label, flat, structure, index))
            template.append(leaf)
    return Leaves(structure, template, tuple(positions), arrays, tuple(key), tensors, traced)


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array on the JAX side: JAX's, numpy's, or only a shape and dtype."""
    if isinstance(leaf, np.generic):
        return leaf.dtype.kind not in "USOMm"  # texts, objects and dates are no numbers
    return isinstance(leaf, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))


def describe_arrays(
    function: Callable[..., Any], leaves: Leaves, shapes: Sequence[tuple[tuple[int, ...], str]]
) -> tuple[tuple[ArrayArgument, ...], tuple[tuple[str, str], ...]]:
    """Name every leaf by its parameter: the arrays, and the static values as text."""
    named = named_leaves(function, leaves)
    arrays = []
    for position, (shape, dtype) in zip(leaves.positions, shapes, strict=True):
        path = named[position]
        arrays.append(ArrayArgument(trees.path_text(path), tuple(map(str, path)), shape, dtype))
    static = {
        trees.path_text(path): leaves.template[index]
        for index, path in enumerate(named)
        if index not in leaves.positions
    }
    return tuple(arrays), static_mapping(static)


def static_values(function: Callable[..., Any], leaves: Leaves) -> dict[str, Any]:
    """The arguments that have static leaves or none at all (None, say), by their parameters."""
    array_numbers = set(leaves.positions)
    # Numbers in place of the leaves tell which of them each argument has.
    numbered = named_arguments(function, leaves, list(range(len(leaves.template))))
    values = named_arguments(function, leaves, leaves.template)
    found = {}
    for (name, numbers), (_, value) in zip(numbered, values, strict=True):
        own = set(trees.flatten(numbers)[0])
        if not own or own - array_numbers:
            found[name] = value
    return found


def named_leaves(function: Callable[..., Any], leaves: Leaves) -> list[tuple[str | int, ...]]:
    """The path of each leaf of the call, from the name of its parameter on."""
    numbered = named_arguments(function, leaves, list(range(len(leaves.template))))
    paths: dict[int, tuple[str | int, ...]] = {}
    for name, value in numbered:
        for path, leaf in trees.flatten_with_paths(value):
            paths[leaf] = (name, *path)
    return [paths[index] for index in range(len(leaves.template))]


def named_arguments(
    function: Callable[..., Any], leaves: Leaves, flat: Sequence[Any]
) -> list[tuple[str, Any]]:
    """The arguments of the call with ``flat`` in place of their leaves, by their parameters."""
    args, kwargs = trees.unflatten(leaves.structure, flat)
    named: list[tuple[str, Any]] = []
    try:
        bound = inspect.signature(_described(function)).bind(*args, **kwargs)
    except (TypeError, ValueError):  # no signature (builtins), or torch will object itself
        named = [(f"args[{index}]", value) for index, value in enumerate(args)]
        named += kwargs.items()
    else:
        for name, value in bound.arguments.items():
            kind = bound.signature.parameters[name].kind
            named += value.items() if kind is inspect.Parameter.VAR_KEYWORD else [(name, value)]
    return named


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The function's parameters; empty if nothing tells them."""
    try:
        return list(inspect.signature(_described(function)).parameters.values())
    except (TypeError, ValueError):  # builtins have no signature
        return []


def _described(function: Callable[..., Any]) -> Callable[..., Any]:
    # A module's own signature is that of __call__, which takes anything.
    return function.forward if isinstance(function, torch.nn.Module) else function


def _static_key(label: str, flat: Sequence[Any], structure: Structure, index: int) -> Any:
    leaf = flat[index]
    try:
        hash(leaf)
    except Exception:  # mostly a TypeError; but it is the object's own code
        path = _call_path(flat, structure, index)
        raise ArgumentError(
            f"{label}, argument `{path}`: expected an array or a static value, got an unhashable "
            f"{type(leaf).__name__}. Static values are part of the plan's key: pass a hashable one "
            "(a tuple, a frozenset), or an array."
        ) from None
    if isinstance(leaf, Iterator):
        raise ArgumentError(
            f"{label}, argument `{_call_path(flat, structure, index)}`: expected a static value "
            f"that can be read more than once, got a {type(leaf).__name__}. Pass a tuple."
        )
    # 1, 1.0 and True are equal but not the same to torch; nor are 0.0 and -0.0.
    if isinstance(leaf, (float, complex)):
        return (type(leaf), repr(leaf))
    if isinstance(leaf, frozenset):
        # Its items likewise. The set as well: items that are not equal may have one text.
        return (type(leaf), frozenset((type(item), repr(item)) for item in leaf), leaf)
    return (type(leaf), leaf)


def _call_path(flat: Sequence[Any], structure: Structure, index: int) -> str:
    # Of numbers in place of the leaves, one of which may be a container itself.
    numbered = trees.unflatten(structure, range(len(flat)))
    return next(path for path, number in _call_paths(*numbered) if number == index)


def _call_paths(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    found = [(trees.path_text(path, "args"), leaf) for path, leaf in trees.flatten_with_paths(args)]
    return found + [
        (trees.path_text(path), leaf) for path, leaf in trees.flatten_with_paths(kwargs)
    ]


def _mixed_message(label: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    jax_side, torch_side = [], []
    for path, leaf in _call_paths(args, kwargs):
        if isinstance(leaf, torch.Tensor):
            torch_side.append(f"`{path}`")
        elif is_array(leaf):
            jax_side.append(f"`{path}`")
    return (
        f"{label}: expected arrays of one side; got JAX arrays in {', '.join(jax_side)} and torch "
        f"tensors in {', '.join(torch_side)}. Convert one of them, with jaxtorch_bridge.t2j or j2t."
    )
