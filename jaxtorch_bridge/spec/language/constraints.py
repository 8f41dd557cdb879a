"""Comparisons of dimensions that every call must meet, such as `dim % heads == 0`.

The long form is a mapping: ``{rule: dim % heads == 0, doc: Heads share the width.}``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .shapes import ShapeSyntaxError, Term, evaluate, names_in, parse_comparison
from .wording import quote

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
    """Two terms over dimension names, and how they must compare; equal whatever the remark."""

    left: Term
    sign: str
    right: Term
    doc: str | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.left} {self.sign} {self.right}"

    def to_data(self, *, docs: bool = True) -> str | dict[str, str]:
        """The constraint as a contract writes it."""
        return {"rule": str(self), "doc": self.doc} if docs and self.doc is not None else str(self)

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


def parse_constraint(text: str, doc: str | None = None) -> Constraint:
    """The constraint written in ``text``, with a remark.

    Raises:
        ShapeSyntaxError: If it is none.
    """
    constraint = Constraint(*parse_comparison(text), doc)
    # Nothing divides by zero here: the parser refuses divisors that are 0 whatever the sizes.
    if not constraint.names and not constraint.holds({}):
        expected, found = "a comparison that some sizes meet", f"{quote(text)}, which never holds"
        raise ShapeSyntaxError(expected, found, 1)
    return constraint
