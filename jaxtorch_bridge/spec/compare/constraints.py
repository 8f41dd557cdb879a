"""Constraints of two contracts compared by what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..language.constraints import Constraint
from ..language.shapes import Operation, Size, Term
from ..language.size_algebra import same_term, substitute
from ..model import CallableSpec
from .shapes import Found, ShapePair

# What a comparison says as well, of the same sides.
_IMPLIED = {"==": ("==", "<=", ">="), "<": ("<", "<=", "!="), ">": (">", ">=", "!=")}

# What a comparison is when its sides change places.
_TURNED = {"==": "==", "!=": "!=", "<=": ">=", ">=": "<=", "<": ">", ">": "<"}


def constraint_changes(old: CallableSpec, new: CallableSpec, pair: ShapePair) -> Iterator[Found]:
    """Constraints that came (breaking) and went (additive)."""
    for index, one in enumerate(new.constraints):
        path = ("constraints", str(index))
        # In the old contract's words; None if old inputs do not tell all of its names.
        translated = _translated(one, pair.forth.known)
        if translated is None:
            yield from _on_new_inputs(one, old, path)
        elif not _asked_by(translated, old):
            yield "breaking", path, f"calls must now meet `{one}`"
    for index, one in enumerate(old.constraints):
        translated = _translated(one, pair.back.known)
        if translated is not None and not _asked_by(translated, new):
            path = ("constraints", str(index))
            yield "additive", path, f"calls need no longer meet `{one}`"
    before = {one: one.doc for one in old.constraints}
    for index, one in enumerate(new.constraints):
        # Constraints are equal whatever their remarks.
        if one in before and before[one] != one.doc:
            yield "neutral", ("constraints", str(index)), "doc changed"


def _on_new_inputs(
    constraint: Constraint, old: CallableSpec, path: tuple[str, ...]
) -> Iterator[Found]:
    # No old call passes those inputs.
    if constraint not in old.constraints:
        yield "neutral", path, f"new inputs must meet `{constraint}`"


def _translated(constraint: Constraint, known: Mapping[str, Term]) -> Constraint | None:
    left, right = substitute(constraint.left, known), substitute(constraint.right, known)
    return None if left is None or right is None else Constraint(left, constraint.sign, right)


def _asked_by(constraint: Constraint, spec: CallableSpec) -> bool:
    """Whether all calls that ``spec`` allows meet it, as far as single constraints tell."""
    if _always_holds(constraint):
        return True
    return any(_follows(constraint, other) for other in spec.constraints)


def _always_holds(constraint: Constraint) -> bool:
    """Whether it says nothing: `3 <= 4`, or `n == n` of what was two names elsewhere."""
    if constraint.names:
        return constraint.sign in _IMPLIED["=="] and same_term(constraint.left, constraint.right)
    try:
        return constraint.holds({}) is True
    except ZeroDivisionError:
        return False


def _follows(constraint: Constraint, other: Constraint) -> bool:
    """Whether sizes that meet ``other`` meet ``constraint``."""
    return any(
        _told_by(one, wanted)
        for one in (other, _turned(other))
        for wanted in (constraint, _turned(constraint))
    )


def _turned(one: Constraint) -> Constraint:
    return Constraint(one.right, _TURNED[one.sign], one.left)


def _told_by(one: Constraint, constraint: Constraint) -> bool:
    if _within(one, constraint):
        return True
    if not same_term(one.right, constraint.right):
        return False
    # Of the same two sides, `n > m` tells `n >= m`.
    implied = constraint.sign in _IMPLIED.get(one.sign, (one.sign,))
    if implied and same_term(one.left, constraint.left):
        return True
    return constraint.sign == one.sign == "==" and _coarser(constraint, one)


def _within(one: Constraint, constraint: Constraint) -> bool:
    """Whether both limit one term by a number, and ``one`` more: from 4 on, not from 2 on."""
    if not isinstance(one.right, Size) or not isinstance(constraint.right, Size):
        return False
    if not same_term(one.left, constraint.left):
        return False
    limits = one.right.size, constraint.right.size
    # Between these nothing changes, and a term may be negative.
    numbers = [limit + step for limit in limits for step in (-1, 0, 1)]
    far = sum(limits) + 2
    return all(
        Constraint(Size(number), constraint.sign, constraint.right).holds({})
        for number in (*numbers, far, -far)
        if Constraint(Size(number), one.sign, one.right).holds({})
    )


def _coarser(constraint: Constraint, other: Constraint) -> bool:
    """Whether ``dim % 2 == 0`` is asked where ``dim % 4 == 0`` was."""
    divided, before = _divisibility(constraint), _divisibility(other)
    if divided is None or before is None or not divided[1]:
        return False
    return before[1] % divided[1] == 0 and same_term(divided[0], before[0])


def _divisibility(constraint: Constraint) -> tuple[Term, int] | None:
    """The term and the number of ``term % number == 0``."""
    left, right = constraint.left, constraint.right
    if (
        isinstance(left, Operation)
        and left.operator == "%"
        and isinstance(left.right, Size)
        and right == Size(0)
    ):
        return left.left, left.right.size
    return None
