"""Results padded to the bounds that a contract gives: what ``kept<=100`` means for a call.

The padding is a step of the function like any other: derivatives and batches go through it, and no
engine knows of it. What a call gives has then one size, whatever the values are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..._compat.torch.capture.value_sizes import check_in_graph
from ...planner.output_order import contract_order
from ..arguments.sort_leaves import Leaves, named_leaves
from ..pytrees import trees
from ..pytrees.trees import Structure
from .placed_counts import PlacedCounts

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
        self._returned = [path for path, _ in spec.returned_leaves()]
        self._fills = [0 if leaf.fill is None else leaf.fill for _, leaf in spec.returned_leaves()]
        self._counts = {path[0]: name for path, name in spec.counts.items()}
        self._dtypes = {
            path[0]: getattr(torch, leaf.dtype.only or "int32")
            for path, leaf in spec.output_leaves()
            if path in spec.counts
        }
        self._placed = PlacedCounts(
            spec.label, list(spec.outputs), self._returned, list(self._counts)
        )
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
        if evaluated:
            named = _checked_later(sizes, shapes, named)
        for index, leaf, target, fill in zip(order, own, targets, self._fills, strict=True):
            pad = _put_into_place if evaluated else _padded
            leaves[index] = pad(leaf, target, fill)
        device = own[0].device if own else None
        counts = {
            output: torch.full((), named.get(name, 0), dtype=self._dtypes[output], device=device)
            for output, name in self._counts.items()
        }
        value = trees.unflatten_for_torch(structure, leaves)
        if behind and counts:
            sizes.refuse_counts_among(behind)
        return self._placed.place(value, structure, counts, behind)

    def around(self, result: Any, behind: int) -> Any:
        """What `result` gives, for what the function returns, without its tensors."""
        structure = trees.flatten(result)[1]
        return self._placed.place(result, structure, dict.fromkeys(self._counts, 0), behind)

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


def _padded(leaf: torch.Tensor, target: Sequence[int], fill: float) -> torch.Tensor:
    # From the last axis on, as torch has it; what is negative cuts.
    missing = [(0, size - own) for own, size in zip(leaf.shape, target, strict=True)]
    if not any(behind for _, behind in missing):
        return leaf
    flat = [number for pair in reversed(missing) for number in pair]
    return torch.constant_pad_nd(leaf, flat, fill)


def _put_into_place(leaf: torch.Tensor, target: Sequence[int], fill: float) -> torch.Tensor:
    """The same where sizes are symbols, which padding does not take."""
    # Whether a symbol is that number nobody can say.
    if all(isinstance(size, int) for size in leaf.shape) and leaf.shape == tuple(target):
        return leaf
    # What is cut goes behind the end.
    wide = leaf.new_full([size + 1 for size in target], fill)
    places = [
        torch.arange(own, device=leaf.device).clamp(max=size).reshape(_along(axis, leaf.dim()))
        for axis, (own, size) in enumerate(zip(leaf.shape, target, strict=True))
    ]
    found = wide.index_put(tuple(places), leaf)
    for axis, size in enumerate(target):
        found = found.narrow(axis, 0, size)
    return found


def _along(axis: int, count: int) -> list[int]:
    return [-1 if place == axis else 1 for place in range(count)]


def _checked_later(
    sizes: ReturnedSizes, shapes: Sequence[Sequence[Any]], named: Mapping[str, int]
) -> dict[str, Any]:
    """The sizes, some of which are symbols; what holds of them a captured graph has to check."""
    found, equal = sizes.with_symbols(shapes, named)
    for size, wanted in equal:
        if not (isinstance(size, int) and isinstance(wanted, int)):
            torch._check(size == wanted)
    for size, most, words in sizes.limits(found):
        if not isinstance(size, int):
            check_in_graph(size, most, words)
    return found
