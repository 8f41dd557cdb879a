"""Which JAX code stands for which operation of ATen.

A lowering takes, first, what torch says of its result (`Out`; for several results a tuple of
these), then the arguments of the operation's schema: JAX arrays, plain Python values, tuples. It
gives an array of that shape and dtype, or a tuple. What it cannot do raises `CannotLowerError`.
What draws random numbers takes a key of JAX's between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np

Lowering = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])
_LOWERINGS: dict[str, Lowering] = {}
_DRAWS: set[str] = set()


class CannotLowerError(Exception):
    """No JAX operation is known that does the same; the message says for what."""


class Out(NamedTuple):
    """What torch says of a result."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Enter a lowering under names of operations, with their overloads."""
    return entered_in(_LOWERINGS, names)


def entered_in(table: dict[str, F], names: Sequence[str]) -> Callable[[F], F]:
    """Enter a function in a table under names, each of which is there once."""

    def enter(function: F) -> F:
        for name in names:
            if name in table:
                raise AssertionError(f"two lowerings of {name}")
            table[name] = function
        return function

    return enter


def draws_by_key(*names: str) -> Callable[[Lowering], Lowering]:
    """The same for operations that draw random numbers."""
    _DRAWS.update(names)
    return lowers(*names)


def takes_key(name: str) -> bool:
    """Whether the lowering of an operation takes a key."""
    return name in _DRAWS


def lowering_of(name: str) -> Lowering | None:
    """The lowering of an operation; None if there is none."""
    return _LOWERINGS.get(name)


def dtype_of(name: str) -> np.dtype[Any]:
    """The dtype of that name, which both libraries share."""
    found: np.dtype[Any] = np.dtype(getattr(jnp, name))
    return found


def limits_of(dtype: Any) -> tuple[Any, Any]:
    """The least and the greatest value of a dtype: infinite for floats."""
    if jnp.issubdtype(dtype, jnp.floating):
        return -jnp.inf, jnp.inf
    if dtype == jnp.bool_:
        return False, True
    info: Any = np.iinfo(np.dtype(dtype))
    return info.min, info.max


def computed_in(dtype: Any) -> Any:
    """The dtype in which torch computes: float32 for narrow floats."""
    return np.dtype(np.float32) if dtype in (jnp.bfloat16, jnp.float16) else dtype


def axes_of(dims: Any, rank: int) -> tuple[int, ...]:
    """Axes as numpy counts them; all for None and for none at all, as torch has it."""
    if dims is None:
        return tuple(range(rank))
    found = (dims,) if isinstance(dims, int) else tuple(dims)
    if not found:
        return tuple(range(rank))
    # A tensor without axes may be reduced over axis 0 or -1.
    return tuple(axis % rank for axis in found) if rank else ()
