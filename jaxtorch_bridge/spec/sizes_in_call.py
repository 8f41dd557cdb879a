"""The sizes of what torch returns in one call, against a contract whose dimensions have bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import SpecMismatchError
from .enforce.inputs import bind_shapes
from .enforce.outputs import check_returned, miscounted, too_many
from .language.problems import Path
from .language.shapes import Name, evaluate, names_in, with_terms
from .language.sizes import aligned
from .model import CallableSpec

Shape = tuple[int, ...]


class ReturnedSizes:
    """What the sizes of the arguments say of those of the results.

    Args:
        spec: The contract.
        shapes: Path of each array of the call -> its shape.

    Raises:
        SpecMismatchError: The arguments do not fit the contract.
    """

    def __init__(self, spec: CallableSpec, shapes: Mapping[Path, Shape]) -> None:
        self._spec = spec
        self._leaves = spec.returned_leaves()
        self._sizes = bind_shapes(spec, shapes)
        self._terms = {name: bound.most for name, bound in spec.bounds.items()}

    def padded(self, shapes: Sequence[Shape], *, known: bool) -> tuple[list[Shape], dict[str, int]]:
        """The shapes that the results of a run are padded to, and the sizes that they have.

        Args:
            shapes: What torch returned, in the contract's order.
            known: Whether these are all numbers; others are not looked at.

        Raises:
            SpecMismatchError: They do not fit the contract, or are more than a bound.
        """
        named = check_returned(self._spec, self._sizes, shapes).named
        if known:
            for name, bound in self._spec.bounds.items():
                # None: it has the size of an argument that was left out.
                most = evaluate(bound.most, named)
                if most is None or (named[name] > most and bound.overflow == "error"):
                    raise too_many(self._spec, self._sizes, bound, named[name], most)
        found = []
        for (_, leaf), shape in zip(self._leaves, shapes, strict=True):
            target = list(shape)
            for dimension, axis, _ in aligned(leaf.shape, shape):
                if names_in(dimension) & self._terms.keys():
                    size = evaluate(with_terms(dimension, self._terms), named)
                    assert size is not None  # all of its names are bound
                    target[axis] = size
            found.append(tuple(target))
        return found, named

    def with_symbols(
        self, shapes: Sequence[Sequence[Any]], named: Mapping[str, int]
    ) -> tuple[dict[str, Any], list[tuple[Any, Any]]]:
        """The sizes of an evaluation that has symbols for some of them, and what has to be equal.

        Args:
            shapes: What it gives, in the contract's order.
            named: The sizes that are numbers, as `padded` gave them.
        """
        found: dict[str, Any] = dict(named)
        every = [
            (dimension, size)
            for (_, leaf), shape in zip(self._leaves, shapes, strict=True)
            for dimension, _, size in aligned(leaf.shape, shape)
        ]
        for dimension, size in every:
            if isinstance(dimension, Name):
                found.setdefault(dimension.name, size)
        pairs = [(size, evaluate(dimension, found)) for dimension, size in every]
        return found, [(size, wanted) for size, wanted in pairs if wanted is not None]

    def limits(self, named: Mapping[str, Any]) -> Iterator[tuple[Any, int, str]]:
        """For each bound, more than which is an error: a size, the most, and what the error says.

        Args:
            named: The sizes, as `with_symbols` gave them.
        """
        for name, bound in self._spec.bounds.items():
            most = evaluate(bound.most, named)
            if bound.overflow == "error" and most is not None:
                error = too_many(self._spec, self._sizes, bound, "more", most)
                yield named[name], most, str(error)

    def refuse_counts_among(self, behind: int) -> None:
        """Object to a count that the contract has among the new values of arguments.

        Args:
            behind: How many arguments the function writes to.

        Raises:
            SpecMismatchError: Names it.
        """
        for name in list(self._spec.outputs)[-behind:]:
            if (name,) in self._spec.counts:
                expected = "it before the new values of arguments, which come last"
                raise SpecMismatchError(
                    f"{self._spec.label}, output `{name}`: expected {expected}; got it behind "
                    f"them. Move it up [{self._spec.where(f'outputs.{name}')}]",
                    callable_name=self._spec.label,
                    argument=name,
                    path=f"outputs.{name}",
                    place=self._spec.where(f"outputs.{name}"),
                    expected=expected,
                    found="it behind them",
                )

    def miscounted(self, count: int) -> SpecMismatchError:
        """The error for another number of results."""
        return miscounted(self._spec, count, "when running", self._sizes, returned=True)
