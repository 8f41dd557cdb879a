"""Results padded to the bounds that a contract gives: what ``kept<=100`` means for a call.

The padding is a step of the function like any other: derivatives and batches go through it, and no
engine knows of it. What a call gives has then one size, whatever the values are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...planner.output_order import contract_order
from ..arguments.sort_leaves import Leaves, named_leaves
from ..pytrees import trees
from ..pytrees.trees import Structure

if TYPE_CHECKING:
    from ...spec.model import CallableSpec
    from ...spec.sizes_in_call import ReturnedSizes

# Calls of that many sets of shapes are looked up.
_MOST_SHAPES = 64


def bounded_results(
    spec: CallableSpec | None, function: Callable[..., Any], leaves: Leaves
) -> BoundedResults | None:
    """What pads the results of a way of calling; None if its contract gives no bounds."""
    if spec is None or not spec.bounds:
        return None
    named = named_leaves(function, leaves)
    return BoundedResults(spec, [tuple(map(str, named[place])) for place in leaves.positions])


class BoundedResults:
    """What a call returns in place of what its function returns: arrays of the size of the bounds.

    Args:
        spec: The contract.
        paths: What the contract calls each tensor of the call.
    """

    def __init__(self, spec: CallableSpec, paths: Sequence[tuple[str, ...]]) -> None:
        # Here: a program without contracts starts without pydantic.
        from ...spec.sizes_in_call import ReturnedSizes

        self._label = spec.label
        self._paths = tuple(paths)
        self._outputs = list(spec.outputs)
        self._returned = [path for path, _ in spec.returned_leaves()]
        self._fills = [0 if leaf.fill is None else leaf.fill for _, leaf in spec.returned_leaves()]
        self._counts = {path[0]: name for path, name in spec.counts.items()}
        self._dtypes = {
            path[0]: getattr(torch, leaf.dtype.only or "int32")
            for path, leaf in spec.output_leaves()
            if path in spec.counts
        }
        self._orders: dict[Structure, list[int]] = {}
        self._sizes: dict[Any, ReturnedSizes] = {}
        self._make_sizes: Callable[[Any], ReturnedSizes] = functools.partial(ReturnedSizes, spec)

    def result(self, result: Any, tensors: Sequence[torch.Tensor], behind: int = 0) -> Any:
        """The result of the call.

        Args:
            result: What the function returned.
            tensors: What it was called with.
            behind: How many new values of arguments stand behind that, which stay there.

        Raises:
            SpecMismatchError: It does not fit the contract, or is more than a bound.
        """
        leaves, structure = trees.flatten(result)
        if not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
            return result  # refused by what looks at results
        sizes = self._sizes_of(tensors)
        order = self._order(structure, leaves, sizes)
        own = [leaves[index] for index in order]
        shapes = [tuple(leaf.shape) for leaf in own]
        evaluated = any(not isinstance(size, int) for shape in shapes for size in shape)
        targets, named = sizes.padded(shapes, known=not evaluated)
        for index, leaf, target, fill in zip(order, own, targets, self._fills, strict=True):
            pad = _stands_for_padded if evaluated else _padded
            leaves[index] = pad(leaf, target, fill)
        device = own[0].device if own else None
        counts = {
            output: torch.full((), named.get(name, 0), dtype=self._dtypes[output], device=device)
            for output, name in self._counts.items()
        }
        value = trees.unflatten_for_torch(structure, leaves)
        if behind and counts:
            sizes.refuse_counts_among(behind)
            own, *values = value
            return (self._with_counts(own, counts, behind), *values)
        return self._with_counts(value, counts)

    def _sizes_of(self, tensors: Sequence[torch.Tensor]) -> ReturnedSizes:
        # Random keys and the like come behind the arrays.
        shapes = tuple(tuple(tensor.shape) for tensor, _ in zip(tensors, self._paths, strict=False))
        if any(not isinstance(size, int) for shape in shapes for size in shape):
            return self._make_sizes(dict(zip(self._paths, shapes, strict=True)))
        found = self._sizes.get(shapes)
        if found is None:
            if len(self._sizes) >= _MOST_SHAPES:
                self._sizes.clear()
            found = self._make_sizes(dict(zip(self._paths, shapes, strict=True)))
            self._sizes[shapes] = found
        return found

    def _order(
        self, structure: Structure, leaves: Sequence[Any], sizes: ReturnedSizes
    ) -> list[int]:
        order = self._orders.get(structure)
        if order is None:
            found = contract_order(self._label, self._returned, trees.paths_of(structure))
            if found is None:
                raise sizes.miscounted(len(leaves))
            order = self._orders[structure] = found
        return order

    def _with_counts(self, value: Any, counts: Mapping[str, torch.Tensor], behind: int = 0) -> Any:
        """The result with the counts where the contract has them, or behind it."""
        if not counts:
            return value
        # The names of new values are the last of those that are not counts.
        own = [name for name in self._outputs if name not in counts]
        own = own[: len(own) - behind]
        outputs = [name for name in self._outputs if name in counts or name in own]
        if type(value) is dict and value.keys() == set(own):
            return {**value, **counts}
        parts = value if type(value) in (list, tuple) else (value,)
        if len(parts) != len(own):
            return (value, *counts.values())
        given = dict(zip(own, parts, strict=True))
        merged = [counts[name] if name in counts else given[name] for name in outputs]
        return merged if type(value) is list else tuple(merged)


def _padded(leaf: torch.Tensor, target: Sequence[int], fill: float) -> torch.Tensor:
    # From the last axis on, as torch has it; what is negative cuts.
    missing = [(0, size - own) for own, size in zip(leaf.shape, target, strict=True)]
    if not any(behind for _, behind in missing):
        return leaf
    flat = [number for pair in reversed(missing) for number in pair]
    return torch.constant_pad_nd(leaf, flat, fill)


def _stands_for_padded(leaf: torch.Tensor, target: Sequence[int], fill: float) -> torch.Tensor:
    """Where sizes are symbols: the size, the dtype, and what its derivative comes from."""
    filled = leaf.new_full(tuple(target), fill)
    moves = leaf.dtype.is_floating_point or leaf.dtype.is_complex
    return filled + leaf.sum().to(leaf.dtype) if moves else filled
