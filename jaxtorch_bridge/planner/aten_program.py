"""A graph of torch's ATen operations as plain data, which either side can read.

See https://docs.pytorch.org/docs/stable/torch.compiler_ir.html for the operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
class ResultSig:
    """What torch says of one result."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        op: Its name with the overload, ``add.Tensor``.
        args: By the schema. Plain Python values, `Ref`, `DtypeName`, and tuples of these.
        kwargs: The same by name.
        results: What it gives.
        several: Whether its result is a tuple also where that has one member.
        place: The line of the user's code that it comes from; empty if nobody knows.
    """

    op: str
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    results: tuple[ResultSig, ...]
    several: bool
    place: str = ""


@dataclass(frozen=True, eq=False)
class AtenProgram:
    """Steps in order.

    Attributes:
        inputs: What torch is to see.
        constants: Arrays that the graph holds, as numpy has them.
        steps: In order.
        outputs: Arrays that are given back.
    """

    inputs: tuple[ResultSig, ...]
    constants: tuple[Any, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Ref, ...]
