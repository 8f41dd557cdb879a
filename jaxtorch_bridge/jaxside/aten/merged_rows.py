"""Rows that torch merges for a product of matrices, and takes apart behind it.

Of arrays that are cut along another axis than the first of those merged, JAX cannot tell how the
merged axis is cut. What nobody asks for needs no layout: the product of the array as it was.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..._compat.jax.sharding import explicit_layout
from ...planner.aten_program import Step
from ...planner.sharding import is_whole
from .registry import Lowering, Out

VIEWS = ("view.default", "reshape.default", "_unsafe_view.default", "_reshape_copy.default")
# Where each takes the rows.
_PRODUCTS = {"mm.default": 0, "addmm.default": 1}
TAKES_ROWS = {*VIEWS, *_PRODUCTS}


class MergedRows(NamedTuple):
    """A matrix, as the array whose axes but the last its rows merge."""

    array: Any
    shape: tuple[int, ...]


def merged_rows(step: Step, out: Out, lower: Lowering, args: Sequence[Any]) -> Any:
    """What one of `TAKES_ROWS` gives: of merged rows, or such; None where it has none of them."""
    if step.op in VIEWS:
        x = args[0].array if isinstance(args[0], MergedRows) else args[0]
        found = _merged_behind_a_cut(x, out, lower)
        if found is None and x is not args[0]:
            return lower(out, x, out.shape)
        return found
    place = _PRODUCTS[step.op]
    rows, others = args[place], [*args[:place], *args[place + 1 :]]
    alone = not any(isinstance(one, MergedRows) for one in others)
    # What is added to each row, and not a matrix with rows of its own, nor scaled.
    if not isinstance(rows, MergedRows) or not alone or step.kwargs or others[0].ndim > 2 - place:
        return None
    given = [*args[:place], rows.array, *args[place + 1 :]]
    shape = (*rows.array.shape[:-1], out.shape[-1])
    return MergedRows(lower(Out(shape, out.dtype), *given), out.shape)


def _merged_behind_a_cut(x: Any, out: Out, lower: Lowering) -> MergedRows | None:
    """A matrix whose rows merge an axis that is cut with others before it; None for others."""
    if len(out.shape) != 2 or not x.size or is_whole(explicit_layout(x)):
        return None
    sizes = split_for_both(x.shape, out.shape)
    rows = list(itertools.accumulate(sizes, operator.mul))
    count = rows.index(out.shape[0]) + 1 if out.shape[0] in rows else 0
    if count < 2:
        return None
    shape = (*sizes[:count], out.shape[1])
    array = lower(Out(shape, out.dtype), x, shape)
    return MergedRows(array, out.shape) if any(explicit_layout(array)[1:-1]) else None


def split_for_both(a: Sequence[int], b: Sequence[int]) -> Sequence[int]:
    """The axes of which two shapes of the same size merge theirs; one of them if there are none."""
    ends = sorted({*itertools.accumulate(a, operator.mul), *itertools.accumulate(b, operator.mul)})
    pairs = list(itertools.pairwise([1, *ends]))
    if any(before == 0 or end % before for before, end in pairs):
        return b
    return [end // before for before, end in pairs if end != before]
