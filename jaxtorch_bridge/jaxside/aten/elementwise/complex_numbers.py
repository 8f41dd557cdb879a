"""Complex numbers and their parts."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from ..registry import Out, lowers


@lowers("complex.default")
def complex_of(out: Out, real: Any, imaginary: Any) -> Any:
    """Of two parts."""
    return lax.complex(*jnp.broadcast_arrays(real, imaginary))


@lowers("polar.default")
def polar(out: Out, length: Any, direction: Any) -> Any:
    """Of a length and an angle."""
    return lax.complex(length * jnp.cos(direction), length * jnp.sin(direction))


@lowers("view_as_real.default")
def view_as_real(out: Out, x: Any) -> Any:
    """The parts along a new last axis."""
    return jnp.stack([jnp.real(x), jnp.imag(x)], axis=-1)


@lowers("view_as_complex.default")
def view_as_complex(out: Out, x: Any) -> Any:
    """Of parts along the last axis."""
    return lax.complex(x[..., 0], x[..., 1])


@lowers("real.default")
def real(out: Out, x: Any) -> Any:
    """The real part."""
    return jnp.real(x)


@lowers("imag.default")
def imag(out: Out, x: Any) -> Any:
    """The imaginary part."""
    return jnp.imag(x)
