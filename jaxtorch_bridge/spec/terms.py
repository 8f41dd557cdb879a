"""Terms of shapes compared by what they mean: `seq+1` is `1+seq`."""

from __future__ import annotations

import random
from collections.abc import Mapping

from .shapes import Name, Operation, Size, Term, evaluate, names_in

# Polynomials and floor divisions as short as those of contracts, which agree on this many
# arbitrary sizes, agree everywhere. Seeded: a comparison gives the same answer every time.
_TRIALS = 12


def same_term(left: Term, right: Term) -> bool:
    """Whether both give the same size for all sizes of their names."""
    if left == right:
        return True
    if not isinstance(left, Operation) and not isinstance(right, Operation):
        return False
    names = sorted(names_in(left) | names_in(right))
    source = random.Random(0)
    for _ in range(_TRIALS):
        sizes = {name: source.randrange(1, 1000) for name in names}
        if _size(left, sizes) != _size(right, sizes):
            return False
    return True


def substitute(term: Term, known: Mapping[str, Term]) -> Term | None:
    """``term`` with its names replaced, or None if one of them is not known."""
    if isinstance(term, Name):
        return known.get(term.name)
    if isinstance(term, Size):
        return term
    left, right = substitute(term.left, known), substitute(term.right, known)
    if left is None or right is None:
        return None
    return Operation(term.operator, left, right)


def _size(term: Term, sizes: Mapping[str, int]) -> int | None:
    try:
        return evaluate(term, sizes)
    except ZeroDivisionError:
        return None
