"""Sizes that a contract's constraints make equal: `s == t` is as good as one name for both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from ..language.shapes import Name, Operation, Size, Term
from ..language.size_algebra import same_term
from ..model import CallableSpec

Equal: TypeAlias = Callable[[Term, Term], bool]


def equal_by(spec: CallableSpec) -> Equal:
    """Whether two terms over names of ``spec`` are the same size in every call that it allows."""
    stands_for = _stands_for(spec)
    if not stands_for:
        return same_term

    def equal(left: Term, right: Term) -> bool:
        return same_term(_with(left, stands_for), _with(right, stands_for))

    return equal


def _stands_for(spec: CallableSpec) -> dict[str, Term]:
    """Names with the name or number that constraints say they equal."""
    # A constraint over sizes that only a left-out input has is not checked.
    bound = {
        name
        for _, leaf in spec.input_leaves()
        if not leaf.optional
        for name in leaf.shape.plain_names
    }
    result: dict[str, Term] = {}
    for one in spec.constraints:
        if one.sign != "==" or not one.names <= bound:
            continue
        left, right = _with(one.left, result), _with(one.right, result)
        # `4 == n` says of `n` what `n == 4` does.
        if not isinstance(left, Name):
            left, right = right, left
        if isinstance(left, Name) and isinstance(right, (Name, Size)) and left != right:
            new: dict[str, Term] = {left.name: right}
            # Names that stood for this one follow, so that one look-up is always enough.
            result = {name: _with(term, new) for name, term in result.items()} | new
    return result


def _with(term: Term, stands_for: Mapping[str, Term]) -> Term:
    if isinstance(term, Name):
        return stands_for.get(term.name, term)
    if isinstance(term, Operation):
        left, right = _with(term.left, stands_for), _with(term.right, stands_for)
        return Operation(term.operator, left, right)
    return term
