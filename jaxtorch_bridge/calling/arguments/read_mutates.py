"""Which tensors of a call its function writes to: what ``mutates`` means for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...dotted_names import dotted
from ...errors import ArgumentError
from ..pytrees import trees
from .mutated_arguments import Group, Mutated
from .sort_leaves import Leaves, named_arguments


def mutated_arguments(
    label: str,
    names: Sequence[str],
    function: Callable[..., Any],
    leaves: Leaves,
) -> Mutated | None:
    """What a way of calling writes to; None if nothing is declared.

    Raises:
        ArgumentError: There is no such argument, or it holds something else than arrays.
    """
    if not names:
        return None
    named = named_arguments(function, leaves, list(range(len(leaves.template))))
    numbered = dict(named)
    # Of functions without a signature: messages show `args[0]`, which is `args.0` as a name.
    if unnamed := [value for name, value in named if dotted(name) != name]:
        numbered["args"] = unnamed
    slots = {position: slot for slot, position in enumerate(leaves.positions)}
    groups = []
    for name in names:
        # Down the path through numbers in place of the leaves, which tell the tensors.
        value: Any = numbered
        for part in dotted(name).split("."):
            try:
                value = value[int(part)] if isinstance(value, (list, tuple)) else value[part]
            except (KeyError, IndexError, TypeError, ValueError):
                known = ", ".join(f"`{known}`" for known, _ in named)
                raise ArgumentError(
                    f"{label}: expected the argument `{name}`, which is declared under `mutates`, "
                    f"among {known or 'no arguments'}. Correct the name, or pass it."
                ) from None
        numbers, structure = trees.flatten(value)
        if not numbers or any(number not in slots for number in numbers):
            raise ArgumentError(
                f"{label}, argument `{name}`: expected arrays, since `mutates` declares that the "
                "function writes to it; it holds something else. Declare a part of it."
            )
        groups.append(Group(name, tuple(slots[number] for number in numbers), structure))
    return Mutated(label, groups)
