"""A function at sizes other than those of the example."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch

from ..._compat.torch.fake_tensors import cannot_be_fake, looks_at_values
from ...calling.arguments.sort_leaves import describe_arrays, sort_leaves
from ...calling.flat_function import FlatFunction
from ...calling.pytrees import trees
from ...errors import BridgeError
from ...planner.build_plan import CallFacts, plan_inputs
from ...torchside.closure.closure_state import ClosureState
from ...torchside.observe.abstract_evaluation import infer_abstractly
from ..check.calls import by_position
from ..check.problems import first_line
from .examples import Path
from .lists import as_lists

# (path of the array, axis)
Axis = tuple[Path, int]


@dataclass(frozen=True)
class Result:
    """One array that came back.

    Attributes:
        path: Where it stands in the function's result.
        sizes: Its shape.
        dtype: Its dtype.
    """

    path: tuple[str | int, ...]
    sizes: tuple[int, ...]
    dtype: str


class ProbeError(Exception):
    """The function fails at these sizes."""


class Probe:
    """Evaluates a function abstractly, or for real where it looks at values.

    Attributes:
        dtypes: Of each input.
        sizes: Of each axis, in the example.
        runs: Whether it has to be run.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arrays: Mapping[Path, tuple[str, tuple[int, ...]]],
        static: Mapping[str, Any],
    ) -> None:
        self._function = function
        self._static = dict(static)
        self._closure = ClosureState(function)
        self.dtypes = {path: dtype for path, (dtype, _) in arrays.items()}
        self._ranks = {path: len(sizes) for path, (_, sizes) in arrays.items()}
        self.sizes: dict[Axis, int] = {
            (path, axis): size
            for path, (_, sizes) in arrays.items()
            for axis, size in enumerate(sizes)
        }
        self.runs = False

    def works(self, changed: Mapping[Axis, int]) -> bool:
        """Whether the function accepts these sizes, the others as in the example."""
        try:
            self.results(changed)
        except ProbeError:
            return False
        return True

    def results(self, changed: Mapping[Axis, int]) -> tuple[Result, ...]:
        """What comes back at these sizes, the others as in the example.

        Raises:
            ProbeError: The function fails.
        """
        sizes = {**self.sizes, **changed}
        if not self.runs:
            found = self._abstractly(sizes)
            if found is not None:
                return found
            # For good: what looks at values at one size does so at others.
            self.runs = True
        return self._for_real(sizes)

    def shape_of(self, path: Path, sizes: Mapping[Axis, int]) -> tuple[int, ...]:
        """The shape of one array."""
        return tuple(sizes[path, axis] for axis in range(self._ranks[path]))

    def _abstractly(self, sizes: Mapping[Axis, int]) -> tuple[Result, ...] | None:
        args, kwargs = self._arguments(
            lambda path: jax.ShapeDtypeStruct(
                self.shape_of(path, sizes), jax.numpy.dtype(self.dtypes[path])
            )
        )
        try:
            leaves = sort_leaves("infer", args, kwargs)
            shapes = [(tuple(array.shape), str(array.dtype)) for array in leaves.arrays]
            arrays, static = describe_arrays(self._function, leaves, shapes)
            # As with x64: dtypes come back as torch has them.
            inputs, _ = plan_inputs(None, CallFacts("infer", "", arrays, static, (), True))
            inference, _, attempts = infer_abstractly(
                FlatFunction(self._function, leaves), inputs, "cpu", "infer", self._closure
            )
        except BridgeError as error:
            raise ProbeError(str(error)) from None
        except SystemExit as error:  # a function that ends its process must not end this one
            raise ProbeError(first_line(error)) from None
        if inference is None:
            errors = [attempt.error for attempt in attempts]
            if any(looks_at_values(one) or cannot_be_fake(one) for one in errors):
                return None
            raise ProbeError(first_line(errors[0]))
        numbered = trees.unflatten(inference.structure, list(range(len(inference.outputs))))
        paths = [path for path, _ in trees.flatten_with_paths(numbered)]
        return tuple(
            Result(path, meta.shape, meta.torch_dtype)
            for path, meta in zip(paths, inference.outputs, strict=True)
        )

    def _for_real(self, sizes: Mapping[Axis, int]) -> tuple[Result, ...]:
        # Seeded, or a size could work in one try and fail in the next.
        source = np.random.default_rng(0)
        least = min(sizes.values(), default=2)

        def make(path: Path) -> torch.Tensor:
            dtype = getattr(torch, self.dtypes[path])
            shape = self.shape_of(path, sizes)
            if dtype.is_floating_point or dtype.is_complex:
                return torch.from_numpy(source.standard_normal(shape)).to(dtype)
            # As an index or a label it is in range.
            return torch.from_numpy(source.integers(0, max(1, min(least, 100)), shape)).to(dtype)

        args, kwargs = self._arguments(make)
        try:
            with torch.no_grad():
                result = self._function(*args, **kwargs)
        except (Exception, SystemExit) as error:
            raise ProbeError(first_line(error)) from None
        found = trees.flatten_with_paths(result)
        for path, leaf in found:
            if not isinstance(leaf, torch.Tensor):
                words = trees.path_text(path, "result")
                raise ProbeError(f"{words} is no tensor, but {type(leaf).__name__}")
        return tuple(
            Result(path, tuple(leaf.shape), str(leaf.dtype).removeprefix("torch."))
            for path, leaf in found
        )

    def _arguments(self, make: Callable[[Path], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        values: dict[str, Any] = {}
        for path in self.dtypes:
            holder = values
            for part in path[:-1]:
                holder = holder.setdefault(part, {})
            holder[path[-1]] = make(path)
        return by_position(self._function, {**as_lists(values), **self._static})


def parameters_of(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function, or of a module's ``forward``; none of a builtin."""
    described = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        return dict(inspect.signature(described).parameters)
    except (TypeError, ValueError):
        return {}
