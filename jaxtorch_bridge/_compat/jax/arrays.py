"""JAX's arrays, and those behind tracers. Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0."""

from __future__ import annotations

from typing import Any

import jax
from jax._src import core as _core
from jax._src.array import ArrayImpl as ArrayImpl


def concrete_value(value: Any) -> Any | None:
    """The array behind a value, or None where there is only a type (under ``jit``).

    ``jax.grad`` outside of ``jit`` calls the function with tracers that hold real arrays.
    """
    if isinstance(value, jax.core.Tracer):
        # The value of a tracer may be a tracer once more, of a transformation around this one.
        found = _core.to_concrete_value(value)
        return None if isinstance(found, jax.core.Tracer) else found
    return value


def wait_for(array: Any) -> None:
    """Return when an array has been computed; at once in the common case that it has."""
    if not array.is_ready():
        array.block_until_ready()
