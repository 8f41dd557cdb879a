"""Where counts stand in a result: where the contract has them, or behind what torch returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import SpecMismatchError
from ...planner.output_order import Names, Reading, order_and_reading
from ..pytrees import trees
from ..pytrees.trees import Structure


@dataclass(frozen=True)
class _Own:
    """What a function returned, as the contract's outputs.

    Attributes:
        names: The outputs that it is, without counts and new values of arguments.
        reading: How it is told that it is them.
        first: Those that the first place of it has, where it goes by `first`.
        named: Whether any of it has names of its own.
    """

    names: tuple[str, ...]
    reading: Reading
    first: frozenset[str]
    named: bool


class PlacedCounts:
    """Puts the counts of a contract into results.

    Args:
        label: The contract's, for messages.
        outputs: The names of its outputs, in order.
        returned: Paths of the arrays that torch returns, likewise.
        counts: Which of the outputs are counts.
    """

    def __init__(
        self, label: str, outputs: Sequence[str], returned: Sequence[Names], counts: Sequence[str]
    ) -> None:
        self._label = label
        self._outputs = tuple(outputs)
        self._returned = tuple(returned)
        self._counts = frozenset(counts)
        self._owns: dict[tuple[Structure, int], _Own] = {}

    def place(
        self, result: Any, structure: Structure, counts: Mapping[str, Any], behind: int
    ) -> Any:
        """The result with counts.

        Args:
            result: What the function returned; with new values of arguments, a tuple of that and
                these.
            structure: Its structure.
            counts: By name, in the contract's order.
            behind: How many new values there are.
        """
        if not counts:
            return result
        value, values = (result[0], result[1:]) if behind else (result, ())
        own = self._owns.get((structure, behind))
        if own is None:
            own = self._owns[structure, behind] = self._told(value, behind)
        if type(value) is dict and value.keys() == set(own.names):
            return _before({**value, **counts}, values)
        is_row = type(value) in (list, tuple)
        if own.reading in ("places", "order") and is_row and len(value) == len(own.names):
            merged = self._in_order(dict(zip(own.names, value, strict=True)), counts)
        elif own.reading == "first" and is_row:
            others = [name for name in own.names if name not in own.first]
            behind_it = dict(zip(others, value[1:], strict=True))
            merged = [value[0], *self._in_order(behind_it, counts)]
        elif len(own.names) == 1 and own.reading != "names":
            merged = self._in_order({own.names[0]: value}, counts)
            if own.named:
                return (*merged, *values)
            is_row = False
        else:
            merged, is_row = [value, *counts.values()], False
            if own.reading == "names":
                return (*merged, *values)
            if values:
                self._refuse_before(own.names)
        return _before(merged if is_row and type(value) is list else tuple(merged), values)

    def _told(self, value: Any, behind: int) -> _Own:
        names = [name for name in self._outputs if name not in self._counts]
        names = names[: len(names) - behind]
        declared = [path for path in self._returned if path[0] in names]
        paths = trees.paths_of(trees.flatten(value)[1])
        found = order_and_reading(self._label, declared, paths)
        return _Own(
            tuple(names),
            # None: some of it is an argument's new value. It is refused where results are compared.
            "order" if found is None else found[1],
            frozenset(str(path[1]) for path in paths if len(path) > 1 and path[0] == 0),
            any(isinstance(part, str) for path in paths for part in path),
        )

    def _refuse_before(self, names: Sequence[str]) -> None:
        """Object to a count before results that have no names, and new values behind them."""
        last = max(map(self._outputs.index, names))
        for name in self._outputs[:last]:
            if name in self._counts:
                expected = "it behind the other results, which have no names, and before new values"
                raise SpecMismatchError(
                    f"{self._label}, output `{name}`: expected {expected}; got it before them. "
                    "Move it down in the contract.",
                    callable_name=self._label,
                    argument=name,
                    expected=expected,
                    found="it before them",
                )

    def _in_order(self, given: Mapping[str, Any], counts: Mapping[str, Any]) -> list[Any]:
        every = {**given, **counts}
        return [every[name] for name in self._outputs if name in every]


def _before(result: Any, values: Sequence[Any]) -> Any:
    return (result, *values) if values else result
