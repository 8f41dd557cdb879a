"""Which array leaves of a call are left out of differentiation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import PlanningError
from .array_signature import ArraySig


def mark_nondiff(
    label: str, inputs: Sequence[ArraySig], paths: Sequence[str]
) -> tuple[ArraySig, ...]:
    """The inputs, those that a path names or leads to without a derivative.

    Args:
        label: The callable's name, for messages.
        inputs: Array leaves of the call.
        paths: Such as ``mask``, ``params['frozen']``, ``layers[0]``.

    Raises:
        PlanningError: A path leads to no array leaf.
    """
    marked = list(inputs)
    for path in paths:
        found = [i for i, sig in enumerate(inputs) if _leads_to(path, sig.path)]
        if not found:
            there = ", ".join(f"`{sig.path}`" for sig in inputs[:20]) or "none"
            raise PlanningError(
                f"{label}, nondiff: expected the path of an array of this call, got `{path}`. The "
                f"arrays are: {there}."
            )
        for index in found:
            marked[index] = replace(marked[index], differentiable=False)
    return tuple(marked)


def _leads_to(path: str, leaf: str) -> bool:
    # The next character decides: `w` leads to `w['a']`, but not to `w2`.
    return leaf == path or (leaf.startswith(path) and leaf[len(path)] in "[.")
