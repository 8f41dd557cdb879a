"""Constraints of two contracts compared by what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .constraints import Constraint
from .diff_shapes import Found, ShapePair
from .model import CallableSpec
from .shapes import Term
from .terms import same_term, substitute

# What a comparison is when its sides change places.
_TURNED = {"==": "==", "!=": "!=", "<=": ">=", ">=": "<=", "<": ">", ">": "<"}


def constraint_changes(old: CallableSpec, new: CallableSpec, pair: ShapePair) -> Iterator[Found]:
    """Constraints that came (breaking) and went (additive)."""
    for index, one in enumerate(new.constraints):
        path = ("constraints", str(index))
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
    if not constraint.names and _always_holds(constraint):
        return True
    return any(_same(constraint, other) for other in spec.constraints)


def _always_holds(constraint: Constraint) -> bool:
    try:
        return constraint.holds({}) is True
    except ZeroDivisionError:
        return False


def _same(one: Constraint, other: Constraint) -> bool:
    turned = Constraint(other.right, _TURNED[other.sign], other.left)
    return any(
        one.sign == two.sign and same_term(one.left, two.left) and same_term(one.right, two.right)
        for two in (other, turned)
    )
