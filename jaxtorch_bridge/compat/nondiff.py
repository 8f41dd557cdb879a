"""Which leaves ``nondiff_argnums`` and ``nondiff_mask`` leave out of differentiation."""

from __future__ import annotations

import operator
from typing import Any

import jax

from ..calling.pytrees import trees
from ..errors import ArgumentError
from .example_arguments import Examples


def read_nondiff(examples: Examples, argnums: Any, mask: Any) -> tuple[bool, ...]:
    """For each leaf of the arguments whether it has no derivative; empty if all have one.

    Args:
        examples: The example arguments.
        argnums: A number or numbers of whole positional arguments; negative ones count from the
            end.
        mask: A tree of bool with as many leaves as the positional arguments, or as these and the
            keyword arguments together.

    Raises:
        ArgumentError: Both are given, a number is out of range, or the mask does not fit.
    """
    if argnums is None and mask is None:
        return ()
    if argnums is not None and mask is not None:
        raise ArgumentError(
            f"{examples.label}: expected nondiff_argnums or nondiff_mask; got both. Say it in one "
            "of them."
        )
    if mask is not None:
        return _from_mask(examples, mask)
    count = len(examples.positional)
    numbers = argnums if isinstance(argnums, (list, tuple, set, frozenset)) else (argnums,)
    chosen = set()
    for number in numbers:
        try:
            index = operator.index(number)
        except TypeError:
            # Out of range, for the message below.
            index = count
        # True is an index in Python, too.
        if isinstance(number, bool) or not -count <= index < count:
            raise ArgumentError(
                f"{examples.label}, nondiff_argnums: expected numbers of the {count} positional "
                f"arguments; got {number!r}. Name leaves of keyword arguments with nondiff_mask."
            )
        chosen.add(index % count)
    flags = [index in chosen for index, size in enumerate(examples.positional) for _ in range(size)]
    return (*flags, *[False] * (len(examples.leaves) - len(flags)))


def stop_gradients(leaves: list[Any], nondiff: tuple[bool, ...]) -> list[Any]:
    """The leaves, constant for JAX's derivatives where they are to have none."""
    return [
        jax.lax.stop_gradient(leaf) if stopped else leaf
        for leaf, stopped in zip(leaves, nondiff, strict=True)
    ]


def _from_mask(examples: Examples, mask: Any) -> tuple[bool, ...]:
    flags = trees.flatten(mask)[0]
    total, positional = len(examples.leaves), sum(examples.positional)
    for flag in flags:
        if not isinstance(flag, bool):
            raise ArgumentError(
                f"{examples.label}, nondiff_mask: expected True or False for each array; got "
                f"{flag!r:.60} ({type(flag).__name__})."
            )
    if len(flags) not in (positional, total):
        wanted = str(positional) if positional == total else f"{positional} or {total}"
        raise ArgumentError(
            f"{examples.label}, nondiff_mask: expected {wanted} leaves, one for each array of the "
            f"example arguments; got {len(flags)}."
        )
    return (*flags, *[False] * (total - len(flags)))
