"""A graph of torch's ATen operations as plain data, which either side can read.

See https://docs.pytorch.org/docs/stable/torch.compiler_ir.html for the operations.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# The name of a step that reads a tensor which was there before the graph.
READS_TENSOR = "a closed-over tensor"
# The name of a step that compares two sizes: a relation, such as ``<=``, and the sizes.
COMPARES_SIZES = "a comparison of sizes"
# Of one that makes a count of sizes: ``min`` or ``max``, the number of the count, and the sizes.
COUNTS_EXTREME = "the least or greatest of sizes"


@dataclass(frozen=True)
class Ref:
    """Stands among arguments for an array that is there already.

    Attributes:
        index: Inputs first, then constants, then the results of the steps, counted through.
    """

    index: int


@dataclass(frozen=True)
class DtypeName:
    """Stands among arguments for a dtype of torch."""

    name: str


@dataclass(frozen=True)
class BoundedSize:
    """A size that follows from values: a sum of products of counts, of places of a mask and such.

    Arrays that have it are computed with the size ``most``. What stands behind the size that they
    really have is anything.

    Attributes:
        terms: Of each product its factor, and the numbers of its counts.
        most: What it is at most.
    """

    terms: tuple[tuple[int, tuple[int, ...]], ...]
    most: int

    @property
    def counts(self) -> frozenset[int]:
        """The numbers of all counts in it."""
        return frozenset(number for _, numbers in self.terms for number in numbers)


@dataclass(frozen=True)
class ResultSig:
    """What torch says of one result.

    Attributes:
        shape: Its sizes; of those that follow from values the most.
        dtype: Its dtype.
        bounded: For each axis the size that follows from values, or None; empty if none does.
    """

    shape: tuple[int, ...]
    dtype: str
    bounded: tuple[BoundedSize | None, ...] = ()


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        op: Its name with the overload, ``add.Tensor``; ``torchvision::nms.default`` of a library.
        args: By the schema. Plain Python values, `Ref`, `DtypeName`, `BoundedSize`, and tuples of
            these.
        kwargs: The same by name.
        results: What it gives; nothing for a check.
        several: Whether its result is a tuple also where that has one member.
        place: The line of the user's code that it comes from; empty if nobody knows.
        draws: Whether it draws random numbers.
        pointwise: Whether each element of its result is made of those at the same place.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    results: tuple[ResultSig, ...]
    several: bool
    place: str = ""
    draws: bool = False
    pointwise: bool = False

    @property
    def words(self) -> str:
        """Its name and place, for messages."""
        name = self.op if "::" in self.op else f"aten.{self.op}"
        return f"{name} ({self.place})" if self.place else name


@dataclass(frozen=True, eq=False)
class AtenProgram:
    """Steps in order.

    Attributes:
        inputs: What torch is to see. Behind it comes the key to draw from, if the program has one.
        constants: Arrays that the graph holds, as numpy has them.
        steps: In order.
        outputs: Arrays that are given back.
        keyed: Whether it takes a key.
        alike: For arrays that are computed like an earlier one, which that is.
    """

    inputs: tuple[ResultSig, ...]
    constants: tuple[Any, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Ref, ...]
    keyed: bool = False
    alike: Mapping[int, int] = field(default_factory=dict)

    @property
    def first_result(self) -> int:
        """The number of the first array that a step gives."""
        return len(self.inputs) + len(self.constants)

    def sig_of(self, number: int) -> ResultSig:
        """What torch says of an array that a step gives, or that is an input."""
        if number < len(self.inputs):
            return self.inputs[number]
        number -= len(self.inputs)
        if number < len(self.constants):
            name, array = self.constants[number]
            return ResultSig(array.shape, name)
        number -= len(self.constants)
        return self._results[number]

    @functools.cached_property
    def _results(self) -> tuple[ResultSig, ...]:
        return tuple(itertools.chain(*(step.results for step in self.steps)))

    def part(self, first: int, last: int) -> Part:
        """What some consecutive steps take from elsewhere, and what of theirs is used elsewhere.

        Args:
            first: The first of these steps.
            last: The step behind them.
        """
        begin = self.first_result + sum(len(step.results) for step in self.steps[:first])
        end = begin + sum(len(step.results) for step in self.steps[first:last])
        own = range(begin, end)
        taken = {ref.index for step in self.steps[first:last] for ref in refs_of(step)}
        later = {ref.index for step in self.steps[last:] for ref in refs_of(step)}
        later |= {ref.index for ref in self.outputs}
        return Part(tuple(sorted(taken.difference(own))), tuple(sorted(later.intersection(own))))


@dataclass(frozen=True)
class Part:
    """The seams of some consecutive steps.

    Attributes:
        takes: Arrays from elsewhere that they read.
        gives: Arrays of theirs that are read elsewhere.
    """

    takes: tuple[int, ...]
    gives: tuple[int, ...]


def refs_of(step: Step) -> Iterator[Ref]:
    """The arrays that a step reads, in order."""
    stack = [*(value for _, value in reversed(step.kwargs)), *reversed(step.args)]
    while stack:
        value = stack.pop()
        if isinstance(value, Ref):
            yield value
        elif isinstance(value, tuple):
            stack += reversed(value)
