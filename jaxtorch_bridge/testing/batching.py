"""Is a batch the same as its elements one by one?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..errors import BatchingError
from .examples import Examples, gaps, like


def check_batching(function: Callable[..., Any], *examples: Any, size: int = 3) -> None:
    """Compare ``jax.vmap`` of a function with a loop over the elements.

    Meant for `jax_callable`s with ``vmap_method`` ``broadcast_all`` or ``expand_dims``, which
    are claims that the function works along leading axes. Tried with all arguments batched, and
    with each of them batched alone. The elements are made of the examples: their values in
    another order, floats multiplied by up to ``1 + size / 8`` as well.

    Args:
        function: A JAX function, or a `jax_callable`.
        examples: Arguments of one call, without a batch axis: arrays, or pytrees of arrays and
            static leaves.
        size: Of the batch.

    Raises:
        BatchingError: The two differ; says for which arguments, by how much, and where.
        ValueError: There is no array among the examples, or ``size`` is less than 2.
    """
    given = Examples(examples)
    if not given.arrays:
        raise ValueError("check_batching: expected at least one array among the examples")
    if size < 2:
        raise ValueError(f"check_batching: expected a size of at least 2, got {size}")
    name = getattr(function, "__name__", type(function).__name__)
    for which, mapped in _ways_to_map(given):
        batches = [
            jnp.stack([like(array, number) for number in range(size)]) if moves else array
            for array, moves in zip(given.arrays, mapped, strict=True)
        ]

        def call(*arrays: Any) -> Any:
            return function(*given.with_arrays(arrays))

        axes = tuple(0 if moves else None for moves in mapped)
        found = jax.vmap(call, in_axes=axes)(*batches)
        pairs = list(zip(batches, mapped, strict=True))
        # Arrays that are not mapped are whole in every single call, as under vmap.
        wanted = [
            call(*(batch[number] if moves else batch for batch, moves in pairs))
            for number in range(size)
        ]
        _compare(name, which, found, wanted)


def _ways_to_map(given: Examples) -> Iterator[tuple[str, list[bool]]]:
    """(words, which of the arrays are batched)."""
    numbers = sorted(set(given.arguments))
    yield "all arguments", [True] * len(given.arrays)
    if len(numbers) > 1:
        for number in numbers:
            yield f"argument {number} alone", [owner == number for owner in given.arguments]


def _compare(name: str, which: str, found: Any, wanted: Sequence[Any]) -> None:
    """A batch with the results of single calls."""
    columns = zip(*(jax.tree.leaves(one) for one in wanted), strict=True)
    for (path, result), column in zip(jax.tree.leaves_with_path(found), columns, strict=True):
        where = f"{name}, output{jax.tree_util.keystr(path)}, with {which} batched"
        expected = jnp.stack(column)
        if result.shape != expected.shape:
            raise BatchingError(
                f"{where}: expected {list(expected.shape[1:])} for each element, got "
                f"{list(result.shape[1:])}. Say `vmap_method: torch_vmap`."
            )
        worst = [difference.max(initial=0.0) for difference in gaps(result, expected)]
        if any(worst):
            number = worst.index(max(worst))
            raise BatchingError(
                f"{where}: element {number} differs from a single call by up to "
                f"{worst[number]:.3g}. Say `vmap_method: torch_vmap`."
            )
