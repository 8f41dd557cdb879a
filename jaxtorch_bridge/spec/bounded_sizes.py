"""Sizes of outputs that follow from values and have a bound: ``kept: float32[kept<=100, 4]``.

The caller of a JAX function gets such arrays padded to the bound, as `jax.numpy.nonzero` pads to
its ``size``; torch returns them in the size that they have. So a contract has two readings: what
comes back, where the bound stands for the name, and what torch returns, where the name is like any
other that only outputs have. An output that counts is made by this library, and torch returns none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..dtypes import DTYPES
from .array_tree import Leaves, Node, with_leaves
from .followed_dtypes import choices_of
from .language.frozen_mapping import FrozenDict
from .language.problems import Fault, Path
from .language.shapes import (
    Bounded,
    Dimension,
    Operation,
    Rest,
    Shape,
    Term,
    names_in,
    with_terms,
)
from .language.wording import did_you_mean, listed, show
from .tensor import OUTPUTS_ALONE, TensorSpec

# The largest numbers of small floats, of which torch refuses larger ones.
_LARGEST = {
    "float16": 65504.0,
    "float8_e4m3fn": 448.0,
    "float8_e4m3fnuz": 240.0,
    "float8_e5m2": 57344.0,
    "float8_e5m2fnuz": 57344.0,
}
# An output of this name counts, where there is one thing to count.
COUNT = "count"


@dataclass(frozen=True)
class Bound:
    """How much a dimension may have.

    Attributes:
        name: The dimension.
        most: The bound.
        overflow: What more than that is.
    """

    name: str
    most: Term
    overflow: Literal["error", "cut"]

    def __str__(self) -> str:
        return f"{self.name}<={self.most}"


def bounds_of(outputs: Leaves) -> dict[str, Bound]:
    """The dimensions with bounds, by name."""
    bounds: dict[str, Bound] = {}
    for _, leaf in outputs:
        for one in leaf.shape.bounds:
            bounds.setdefault(one.name, Bound(one.name, one.bound, "error"))
    for _, leaf in outputs:
        if leaf.overflow == "cut":
            for name in bounded_names(leaf, bounds):
                bounds[name] = replace(bounds[name], overflow="cut")
    return bounds


def counts_of(outputs: Leaves, bounds: Mapping[str, Bound]) -> dict[Path, str]:
    """The outputs that count, each with the dimension."""
    counts = {path: leaf.counts for path, leaf in outputs if leaf.counts is not None}
    if not counts and len(bounds) == 1:
        counts = {path: name for path, leaf in outputs for name in bounds if _is_count(path, leaf)}
    return counts


def as_padded(outputs: FrozenDict[str, Node], bounds: Mapping[str, Bound]) -> FrozenDict[str, Node]:
    """The outputs as they come back."""
    terms = {name: bound.most for name, bound in bounds.items()}
    tree: FrozenDict[str, Node] = with_leaves(outputs, lambda leaf: _with_terms(leaf, terms))
    return tree


def _with_terms(leaf: TensorSpec, terms: Mapping[str, Term]) -> TensorSpec:
    """An array with these in the place of dimension names, and without bounds."""
    dimensions = leaf.shape.dimensions
    shape = Shape(
        tuple(one if isinstance(one, Rest) else with_terms(one, terms) for one in dimensions)
    )
    return leaf if shape == leaf.shape else leaf.model_copy(update={"shape": shape})


def as_returned(
    outputs: FrozenDict[str, Node], counts: Mapping[Path, str]
) -> FrozenDict[str, Node]:
    """The outputs as torch returns them."""
    own = FrozenDict({name: node for name, node in outputs.items() if (name,) not in counts})
    tree: FrozenDict[str, Node] = with_leaves(own, lambda leaf: _with_terms(leaf, {}))
    return tree


def remarks_on(leaf: TensorSpec, bounds: Mapping[str, Bound]) -> Iterator[str]:
    """What a reader should know of an output whose size has a bound."""
    names = bounded_names(leaf, bounds)
    if names:
        yield f"filled with {str(leaf.fill or 0).lower()}"
    cut = [name for name in names if bounds[name].overflow == "cut"]
    if cut:
        yield f"cut at the bound of {listed(cut)}"


def faults_of_inputs(inputs: Leaves) -> Iterator[Fault]:
    """What inputs say that only outputs can."""
    for path, leaf in inputs:
        for one in leaf.shape.bounds:
            expected = "no bound in an input (a comparison under `constraints` says the same)"
            yield Fault(expected, f"`{one}`", (*path, "shape"))
        for field in OUTPUTS_ALONE:
            if getattr(leaf, field) is not None:
                expected = f"no `{field}`, which only outputs have"
                yield Fault(expected, show(getattr(leaf, field)), (*path, field))


def faults_of_bounds(outputs: Leaves, inputs: Leaves) -> Iterator[Fault]:
    """What is wrong with bounds, and with what is said of them."""
    known = frozenset(name for _, leaf in inputs for name in leaf.shape.plain_names)
    bounds = bounds_of(outputs)
    cut: dict[str, str] = {}
    for path, leaf in outputs:
        for one in leaf.shape.bounds:
            yield from _faults_of_bound(one, bounds[one.name], known, (*path, "shape"))
        for dimension in leaf.shape.dimensions:
            yield from _faults_of_use(dimension, bounds, (*path, "shape"))
        names = bounded_names(leaf, bounds)
        for field in ("fill", "overflow"):
            if getattr(leaf, field) is not None and not names:
                expected = f"no `{field}`, since no dimension of it has a bound (`kept<=100`)"
                yield Fault(expected, show(getattr(leaf, field)), (*path, field))
        for name in names if leaf.overflow is not None else ():
            if cut.setdefault(name, str(leaf.overflow)) != leaf.overflow:
                expected = f"`{cut[name]}`, as another output says of `{name}`"
                yield Fault(expected, f"`{leaf.overflow}`", (*path, "overflow"))
        if names and leaf.fill is not None:
            yield from _faults_of_fill(leaf, inputs, path)
        if leaf.counts is not None:
            yield from _faults_of_count(leaf, bounds, path)


def _faults_of_bound(
    one: Bounded, first: Bound, known: frozenset[str], path: Path
) -> Iterator[Fault]:
    if one.name in known:
        yield Fault("a bound on a name that no input has", f"`{one}`", path)
    if one.bound != first.most:
        yield Fault(f"`{first}`, as another output says", f"`{one}`", path)
    open_names = sorted(names_in(one.bound) - known)
    if open_names:
        expected = "a bound over names that stand alone in the shape of some input"
        yield Fault(expected, f"{listed(open_names)} in `{one}`", path)


def _faults_of_use(
    dimension: Dimension | Term, bounds: Mapping[str, Bound], path: Path
) -> Iterator[Fault]:
    """A size that falls where what has the bound grows has no bound by it."""
    if not isinstance(dimension, Operation):
        return
    falling = sorted(names_in(dimension.right) & bounds.keys())
    if dimension.operator in ("-", "//") and falling:
        expected = f"{listed(falling)}, which has a bound, in sums and products alone"
        yield Fault(expected, f"`{dimension}`", path)
    yield from _faults_of_use(dimension.left, bounds, path)
    yield from _faults_of_use(dimension.right, bounds, path)


def _faults_of_fill(leaf: TensorSpec, inputs: Leaves, path: Path) -> Iterator[Fault]:
    for dtype in choices_of(leaf, inputs):
        row, fill = DTYPES[dtype], leaf.fill
        least = -(2 ** (8 * row.size_bytes - 1)) if dtype.startswith("int") else 0
        if row.kind == "bool":
            fits, expected = isinstance(fill, bool), "true or false"
        elif row.kind == "int":
            most = least + 2 ** (8 * row.size_bytes) - 1
            fits = type(fill) is int and least <= fill <= most
            expected = f"an integer from {least} to {most}"
        else:
            most_float = _LARGEST.get(dtype, math.inf)
            finite = not isinstance(fill, bool) and fill is not None and math.isfinite(fill)
            fits = not isinstance(fill, bool) and not (finite and abs(fill or 0) > most_float)
            expected = "a number" + (f" of at most {most_float}" if dtype in _LARGEST else "")
        if not fits:
            yield Fault(f"{expected}, for {dtype}", show(fill), (*path, "fill"))
            return


def _faults_of_count(leaf: TensorSpec, bounds: Mapping[str, Bound], path: Path) -> Iterator[Fault]:
    if leaf.counts not in bounds:
        known = f"one of the dimensions with a bound, {listed(sorted(bounds))}"
        expected = known + did_you_mean(leaf.counts, bounds) if bounds else "a bound to count"
        yield Fault(expected, show(leaf.counts), (*path, "counts"))
    if leaf.shape.dimensions or not _is_integer(leaf):
        yield Fault("an integer such as `int32[]`, since it counts", f"`{leaf}`", path)
    if len(path) > 1:
        yield Fault("a count beside the other outputs, not within a group", "one within", path)


def _is_count(path: Path, leaf: TensorSpec) -> bool:
    return path == (COUNT,) and not leaf.shape.dimensions and _is_integer(leaf)


def _is_integer(leaf: TensorSpec) -> bool:
    only = leaf.dtype.only
    return only is not None and DTYPES[only].kind == "int"


def bounded_names(leaf: TensorSpec, bounds: Mapping[str, Bound]) -> list[str]:
    """The dimensions with bounds that sizes of an output follow from."""
    found: dict[str, None] = {}
    for one in leaf.shape.dimensions:
        found.update(dict.fromkeys(sorted(names_in(one) & bounds.keys())))
    return list(found)
