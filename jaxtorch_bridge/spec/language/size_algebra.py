"""Terms of shapes compared by what they mean: `seq+1` is `1+seq`."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

from .shapes import Name, Operation, Size, Term, evaluate, names_in

# Terms as short as those of contracts, which agree on so many sizes, agree everywhere. Seeded: a
# comparison gives the same answer every time.
_TRIALS = 300


def same_term(left: Term, right: Term) -> bool:
    """Whether both give the same size for all sizes of their names."""
    if left == right:
        return True
    # A name or a number alone is the same as another only if it is equal.
    if not isinstance(left, Operation) and not isinstance(right, Operation):
        return False
    names = sorted(names_in(left) | names_in(right))
    source = random.Random(0)
    numbers = sorted({0, 1, *numbers_in(left), *numbers_in(right)})
    for _ in range(_TRIALS):
        sizes = {name: _telling_size(numbers, source) for name in names}
        if _size(left, sizes) != _size(right, sizes):
            return False
    return True


def _telling_size(numbers: Sequence[int], source: random.Random) -> int:
    """A size of any magnitude, or one around which ``(n+63)//64`` and ``n//64+1`` differ."""
    if source.random() < 0.25:
        return source.randrange(1, 10 ** source.randrange(1, 10))
    near = source.choice((-1, 1)) * source.choice(numbers) + source.randrange(-1, 2)
    return abs(source.choice(numbers) * source.randrange(1, 100) + near) or 1


def numbers_in(term: Term) -> Iterator[int]:
    """The numbers that stand in a term."""
    if isinstance(term, Size):
        yield term.size
    elif isinstance(term, Operation):
        yield from numbers_in(term.left)
        yield from numbers_in(term.right)


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
