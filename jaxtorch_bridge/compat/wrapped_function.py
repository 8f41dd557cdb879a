"""What ``torch2jax`` returns: a `JaxCallable` for arguments like the examples."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from .._compat.jax.arrays import ArrayImpl
from ..call_site import caller_level
from ..calling.call_planner import Planned
from ..calling.exporting import remember
from ..calling.jax_callable import JaxCallable
from ..calling.like_function import LikeFunction, as_bound, signature_of, take_names
from ..calling.outputs.find_outputs import x64_enabled
from ..calling.pytrees import trees
from ..calling.pytrees.trees import Structure
from ..calling.recipe.recipe import Recipe
from ..errors import ArgumentError, BridgeWarning
from ..planner.array_signature import OutputMeta
from ..planner.options import Options
from ..torchside.closure.function_identity import name_of
from .example_arguments import Examples
from .nondiff import stop_gradients
from .output_shapes import Outputs, with_flat_results
from .sharding import call_per_shard, mesh_and_axes, shapes_of_shards

_NUMBERS = (bool, int, float, complex, np.ndarray, np.generic)


class Torch2Jax(LikeFunction):
    """A torch function as a JAX function of arguments like the examples; see `torch2jax`.

    Attributes:
        torch: The original torch function.
    """

    __slots__ = (
        *("_label", "_examples", "_outputs", "_options", "_nondiff", "_out_specs"),
        *("_callables", "_told", "_plain", "_count", "_whole", "_everyday"),
        *("__dict__", "__weakref__"),
    )

    def __init__(
        self,
        function: Callable[..., Any],
        examples: Examples | None,
        outputs: Outputs | None,
        options: Options,
        nondiff: tuple[bool, ...] = (),
        out_specs: Any = None,
    ) -> None:
        take_names(self, function)
        self.torch = function
        self._label = name_of(function)
        self._examples = examples
        self._outputs = outputs
        self._options = options
        self._nondiff = nondiff
        self._out_specs = out_specs
        # By the outputs declared, or None, and whether they have to be narrowed.
        self._callables: dict[Any, JaxCallable[..., Any]] = {}
        self._told: set[Any] = set()
        # Arrays by their position, and nothing to do with them: calls that are not taken apart.
        self._plain = not (nondiff or out_specs is not None) and _is_flat(examples)
        self._count = None if examples is None else len(examples.positional)
        self._whole = outputs is not None and outputs.structure.is_leaf
        # Of plain calls on arrays like the examples, by whether x64 is on.
        self._everyday: dict[bool, JaxCallable[..., Any]] = {}
        # Before the first call makes one of these, by which an exported program may be the first.
        remember(self, self._label, "0")

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run on JAX arrays, or pass torch tensors straight through.

        Raises:
            ArgumentError: The arguments do not have the structure of the examples, or a leaf is no
                array.
            ShardingError: ``out_specs`` does not fit, or is missing for sharded arrays.
            OutputError: Torch returns something else than ``output_shapes`` declares.
            TorchExecutionError: The torch function failed.
        """
        if self._plain and not kwargs and self._count in (None, len(args)):
            for argument in args:
                if type(argument) is not ArrayImpl:
                    break
            else:
                return self._plain_call(args)
        leaves, structure = trees.flatten((args, kwargs))
        # A call without any array is one of JAX: nothing in it speaks for torch.
        if leaves and all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            return self.torch(*args, **kwargs)
        self._check_structure(structure, args, kwargs)
        leaves = self._arrays(leaves)
        if self._out_specs is not None:
            mesh, axes = mesh_and_axes(self._label, leaves, self._out_specs)
            if axes:
                run = self._on_shard(leaves, structure, mesh)
                return call_per_shard(run, leaves, mesh, axes, self._out_specs)
        return self._call(self._declared_for(leaves), leaves, structure)

    def planned_from(self, recipe: Recipe) -> Planned:
        """The plan of the call that an exported program describes; see `JaxCallable`.

        Raises:
            ArgumentError: The structure is not that of the examples.
        """
        args, kwargs = trees.unflatten(recipe.structure, recipe.flat)
        self._check_structure(recipe.structure, args, kwargs)
        declared = self._declared_for(self._arrays(recipe.flat))
        return self._made_with(declared).planned_from(recipe)

    def explain(self, /, *args: Any, **kwargs: Any) -> str:
        """The plan for these arguments as text; see `JaxCallable.explain`."""
        leaves, structure = trees.flatten((args, kwargs))
        self._check_structure(structure, args, kwargs)
        leaves = self._arrays(leaves)
        args, kwargs = trees.unflatten(structure, leaves)
        return self._made_with(self._declared_for(leaves)).explain(*args, **kwargs)

    def __repr__(self) -> str:
        return f"torch2jax({self._label})"

    def _signature(self) -> inspect.Signature:
        found = signature_of(self.torch)
        if self._examples is None:
            return found
        structure, count = self._examples.structure, len(self._examples.leaves)
        return as_bound(found, *trees.unflatten(structure, [None] * count))

    def _made_of(self) -> tuple[Any, ...]:
        options, specs = self._options, self._out_specs
        return self.torch, self._examples, self._outputs, options, self._nondiff, specs

    def _check_structure(self, structure: Structure, args: Any, kwargs: Any) -> None:
        if self._examples is None:
            if kwargs or not all(trees.flatten(arg)[1].is_leaf for arg in args):
                raise ArgumentError(
                    f"{self._label}: expected arrays as positional arguments; got "
                    f"{structure.treedef}. Use torch2jax for arguments in containers."
                )
        elif structure != self._examples.structure:
            raise ArgumentError(
                f"{self._label}: expected arguments (args, kwargs) of the examples' structure "
                f"{self._examples.structure.treedef}; got {structure.treedef}. Wrap the function "
                "again with such examples, or use jax_callable, which needs none."
            )

    def _arrays(self, leaves: Sequence[Any]) -> list[Any]:
        found = []
        for index, leaf in enumerate(leaves):
            if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
                found.append(leaf)
            elif isinstance(leaf, _NUMBERS):
                found.append(jnp.asarray(leaf))
            else:
                path = self._examples.paths[index] if self._examples else f"args[{index}]"
                raise ArgumentError(
                    f"{self._label}, argument `{path}`: expected an array like the example; got "
                    f"{leaf!r:.60} ({type(leaf).__name__}). Pass arrays of one side only, and bind "
                    "values that are no arrays with functools.partial."
                )
        return found

    def _call(self, declared: Outputs | None, leaves: list[Any], structure: Structure) -> Any:
        if self._nondiff:
            leaves = stop_gradients(leaves, self._nondiff)
        args, kwargs = trees.unflatten(structure, leaves)
        return self._rebuilt(self._made_with(declared)(*args, **kwargs))

    def _plain_call(self, args: tuple[Any, ...]) -> Any:
        declared = self._declared_for(args)
        if declared is self._outputs:
            x64 = x64_enabled()
            made = self._everyday.get(x64)
            if made is None:
                made = self._everyday[x64] = self._made_with(declared)
        else:
            made = self._made_with(declared)
        return self._rebuilt(made(*args))

    def _rebuilt(self, result: Any) -> Any:
        # One array and nothing around it: there is nothing to rebuild.
        if self._outputs is None or (self._whole and type(result) is ArrayImpl):
            return result
        return self._outputs.rebuild(result)

    def _on_shard(
        self, leaves: Sequence[Any], structure: Structure, mesh: Any
    ) -> Callable[[list[Any]], Any]:
        declared = self._declared_for(leaves)
        if declared is not None:
            shapes = declared.shape_tree()
            # What was declared is of whole arrays, and torch gets shards.
            parts = shapes_of_shards(self._label, shapes, self._out_specs, mesh)
            declared = declared.with_shapes(parts)
        return lambda shards: self._call(declared, shards, structure)

    def _declared_for(self, leaves: Sequence[Any]) -> Outputs | None:
        """What holds for arrays of these shapes; elsewhere the outputs are found out."""
        if self._outputs is None:
            return None
        if self._examples is None or self._like_examples(leaves):
            return self._outputs
        shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        if shapes not in self._told:
            self._told.add(shapes)
            got = ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves)
            warnings.warn(
                f"{self._label}: output_shapes was declared for the shapes and dtypes of the "
                f"examples; for {got} the outputs are found by evaluating the function abstractly.",
                BridgeWarning,
                stacklevel=caller_level(),
            )
        return None

    def _like_examples(self, leaves: Sequence[Any]) -> bool:
        assert self._examples is not None
        # x64 may be switched between calls.
        wanted = self._examples.wide if x64_enabled() else self._examples.narrow
        for leaf, (shape, dtype) in zip(leaves, wanted, strict=True):
            if leaf.shape != shape or leaf.dtype != dtype:
                return False
        return True

    def _made_with(self, declared: Outputs | None) -> JaxCallable[..., Any]:
        x64 = x64_enabled()
        held = None if declared is None else declared.held(x64=x64)
        key = (held, x64)
        found = self._callables.get(key)
        if found is None:
            # Two threads may make one each; both go on with the first.
            found = self._callables.setdefault(key, self._make(held, x64))
        return found

    def _make(self, held: tuple[OutputMeta, ...] | None, x64: bool) -> JaxCallable[..., Any]:
        function, examples = self.torch, None
        if self._outputs is not None:
            narrowed = () if x64 or held is None else tuple(meta.torch_dtype for meta in held)
            count = len(self._outputs.metas)
            function = with_flat_results(function, self._label, count, narrowed)
        elif self._examples is not None:
            # To run on, where the function cannot be evaluated abstractly.
            examples = self._examples.values
        declared = replace(self._options.declared, outputs=held)
        options = replace(self._options, declared=declared)
        return JaxCallable(function, None, examples, self._label, options)


def _is_flat(examples: Examples | None) -> bool:
    """Whether all arguments are arrays by their position."""
    if examples is None:
        return True
    arrays = (0,) * len(examples.positional)
    return examples.structure == trees.flatten((arrays, {}))[1]
