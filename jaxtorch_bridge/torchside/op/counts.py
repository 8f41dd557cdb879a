"""Counts of a graph: how many places a mask has, how many different values, and sizes made of them.

Two masks that are computed alike have one count, so that what they choose fits together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from ..._compat.torch.capture.user_lines import user_line
from ..._compat.torch.capture.value_sizes import (
    Terms,
    checked_in_graph,
    conditions_of,
    extremes_of,
    symbols_of,
    terms_of,
)
from ..._compat.torch.operators.writes_and_draws import draws_random_numbers
from ...planner.aten_program import COUNTS_EXTREME, BoundedSize, ResultSig, Step
from ..functions.graph_capture import NotCapturedError

_aten = torch.ops.aten
# Of what each of them counts at most all elements.
_OF_ALL = (
    *(_aten.nonzero.default, _aten.masked_select.default, _aten._unique2.default),
    _aten.unique_consecutive.default,
)


class Counts:
    """The counts of a graph, in the order in which its operations make them.

    Attributes:
        fresh: Steps that compute counts of counts, to be taken before what needs them.
    """

    def __init__(self) -> None:
        self.fresh: list[Step] = []
        # The numbers of counts by torch's symbols, and by what is counted.
        self._numbers: dict[str, int] = {}
        self._first: dict[Any, str] = {}
        # The same in words.
        self._made: dict[str, str] = {}
        self._most: list[int] = []
        # For each operation the first one that gives the same.
        self._alike: dict[fx.Node, fx.Node] = {}
        self._seen: dict[Any, fx.Node] = {}

    def note(self, node: fx.Node) -> None:
        """Look at an operation: what it counts, if it does.

        Raises:
            NotCapturedError: Nobody knows how much that is at most.
        """
        self._alike[node] = self._find_alike(node)
        if node.target is _aten._local_scalar_dense.default:
            raise NotCapturedError(
                f"it reads a value, by `.item()` or the like ({user_line(node)})"
            )
        value = node.meta.get("val")
        results = value if isinstance(value, (tuple, list)) else (value,)
        fresh: set[str] = set().union(*map(symbols_of, results)) - self._numbers.keys()
        if not fresh:
            return
        counted = _counted(node)
        if counted is None or len(fresh) > 1:
            raise NotCapturedError(
                f"sizes of the results of {node.target} follow from values ({user_line(node)})"
            )
        (symbol,) = fresh
        line = user_line(node)
        self._made[symbol] = f"how much {node.target} finds" + (f" ({line})" if line else "")
        # What else than a mask is counted, such as different values, only the operation tells.
        mask = node.target in (_aten.index.Tensor, _aten.nonzero.default)
        what = ("places", self._alike[counted]) if mask else ("values", self._alike[node])
        first = self._first.setdefault(what, symbol)
        if first == symbol:
            self._most.append(self._most_in(node, counted))
            self._numbers[symbol] = len(self._most) - 1
        else:
            self._numbers[symbol] = self._numbers[first]

    def _most_in(self, node: fx.Node, counted: fx.Node) -> int:
        shape = self.sig(counted.meta["val"]).shape
        if node.target is _aten.masked_select.default:
            source: Any = node.args[0]
            shape = torch.broadcast_shapes(self.sig(source.meta["val"]).shape, shape)
        return math.prod(shape)

    def alike(self, node: fx.Node) -> fx.Node:
        """The first operation that gives the same values."""
        return self._alike.get(node, node)

    def size(self, size: Any) -> int | BoundedSize:
        """A size as plain data.

        Raises:
            NotCapturedError: It is none of counts.
        """
        if isinstance(size, int):
            return size
        terms, known = terms_of(size), symbols_of(size) <= self._numbers.keys()
        if known:
            for name, which, of in extremes_of(size):
                self._note_extreme(name, which, of)
        if terms is None or not known:
            raise NotCapturedError(f"it computes with a number that follows from values: {size}")
        return self._of_terms(terms)

    def _note_extreme(self, name: str, which: str, of: list[Terms]) -> None:
        if name in self._numbers:
            return
        sizes = [self._of_terms(terms) for terms in of]
        most = [size if isinstance(size, int) else size.most for size in sizes]
        self._numbers[name] = len(self._most)
        self._most.append(min(most) if which == "min" else max(most))
        self.fresh.append(Step(COUNTS_EXTREME, (which, self._numbers[name], *sizes), (), (), True))

    def _of_terms(self, terms: Terms) -> int | BoundedSize:
        by_number: dict[tuple[int, ...], int] = {}
        for factor, names in terms:
            numbers = tuple(sorted(self._numbers[name] for name in names))
            by_number[numbers] = by_number.get(numbers, 0) + factor
        # What is subtracted is nothing at least.
        most = sum(
            factor * math.prod(self._most[number] for number in numbers)
            for numbers, factor in by_number.items()
            if factor > 0 or not numbers
        )
        found = tuple((factor, key) for key, factor in sorted(by_number.items()) if factor)
        return BoundedSize(found, max(most, 0)) if any(key for _, key in found) else most

    def holds(self, node: fx.Node) -> bool:
        """Whether an operation checks a size that cannot be more."""
        checked = checked_in_graph(node)
        if checked is None:
            return False
        size, most = self.size(checked[0]), checked[1]
        return (size if isinstance(size, int) else size.most) <= most

    def sig(self, value: Any) -> ResultSig:
        """What torch says of a result."""
        if value is None:
            return ResultSig((), "none")
        sizes = [self.size(size) for size in value.shape]
        shape = tuple(size if isinstance(size, int) else size.most for size in sizes)
        dtype = str(value.dtype).removeprefix("torch.")
        if not any(isinstance(size, BoundedSize) for size in sizes):
            return ResultSig(shape, dtype)
        bounded = tuple(None if isinstance(size, int) else size for size in sizes)
        return ResultSig(shape, dtype, bounded)

    def conditions(
        self, graph: fx.GraphModule, *, of_derivative: bool
    ) -> Iterator[tuple[str, str, int | BoundedSize, int | BoundedSize]]:
        """What has to be checked when the graph runs: in words, the relation and two sizes.

        Args:
            graph: What was read.
            of_derivative: The function itself, which runs as well, checks what matters: that a
                selection is not empty, for one.

        Raises:
            NotCapturedError: It cannot be checked.
        """
        names: dict[int, str] = {}
        same = {
            symbol: names.setdefault(number, symbol) for symbol, number in self._numbers.items()
        }
        for one in conditions_of(graph, same):
            symbols = {name for _, factors in (*one.left, *one.right) for name in factors}
            if of_derivative and one.in_general:
                continue
            told = [f"{name} is {self._made[name]}" for name in sorted(symbols & self._made.keys())]
            words = f"{one.words}, of sizes that follow from values" + "".join(
                f"{', where' if place == 0 else ' and'} {words}" for place, words in enumerate(told)
            )
            if one.relation is None or not symbols <= self._numbers.keys():
                raise NotCapturedError(f"it needs {words}")
            yield words, one.relation, self._of_terms(one.left), self._of_terms(one.right)

    def _find_alike(self, node: fx.Node) -> fx.Node:
        """The first operation that gives the same values."""
        if node.op != "call_function" or _draws(node):
            return node
        key = (node.target, self._key(node.args), self._key(node.kwargs))
        return self._seen.setdefault(key, node)

    def _key(self, value: Any) -> Any:
        if isinstance(value, fx.Node):
            return self._alike.get(value, value)
        if isinstance(value, (list, tuple)):
            return tuple(map(self._key, value))
        if isinstance(value, dict):
            return tuple((name, self._key(one)) for name, one in sorted(value.items()))
        # 1, 1.0 and True are equal, and so are both zeros.
        return type(value), repr(value) if isinstance(value, (float, complex)) else value


def _draws(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and draws_random_numbers(
        node.target, node.args, node.kwargs
    )


def _counted(node: fx.Node) -> fx.Node | None:
    """What an operation looks through."""
    if node.target in _OF_ALL:
        found: Any = node.args[1 if node.target is _aten.masked_select.default else 0]
        return found if isinstance(found, fx.Node) else None
    if node.target is _aten.index.Tensor:
        indices: Any = node.args[1]
        masks = [
            one
            for one in indices
            if isinstance(one, fx.Node) and one.meta["val"].dtype in (torch.bool, torch.uint8)
        ]
        return masks[0] if len(masks) == 1 else None
    return None
