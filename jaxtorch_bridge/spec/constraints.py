"""Comparisons of dimensions that every call must meet, such as `dim % heads == 0`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .shapes import Term, evaluate, names_in, parse_comparison

_HOLDS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Constraint:
    """Two terms over dimension names, and how they must compare."""

    left: Term
    sign: str
    right: Term

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"

    @property
    def names(self) -> frozenset[str]:
        """The dimensions that it speaks of."""
        return names_in(self.left) | names_in(self.right)

    def holds(self, sizes: Mapping[str, int]) -> bool | None:
        """Whether ``sizes`` meet it, or None while one of its names has none.

        Raises:
            ZeroDivisionError: If one side divides by zero.
        """
        left, right = evaluate(self.left, sizes), evaluate(self.right, sizes)
        return None if left is None or right is None else _HOLDS[self.sign](left, right)

    def with_sizes(self, sizes: Mapping[str, int]) -> str:
        """Both sides worked out, such as ``2 == 0``."""
        return f"{evaluate(self.left, sizes)} {self.sign} {evaluate(self.right, sizes)}"


def parse_constraint(text: str) -> Constraint:
    """The constraint written in ``text``.

    Raises:
        ShapeSyntaxError: If it is none.
    """
    return Constraint(*parse_comparison(text))
