"""Abstract values of operands, of results and of tangents.

Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax._src import core as _core
from jax.interpreters import ad


def aval_of(value: Any) -> Any:
    """The abstract value of an array, a tracer or an undefined primal."""
    return value.aval if ad.is_undefined_primal(value) else jax.typeof(value)


def output_avals(
    outputs: Sequence[tuple[tuple[int, ...], str]], operands: Sequence[Any]
) -> list[Any]:
    """Abstract results for the given (shape, dtype) pairs of a call on ``operands``.

    Under ``shard_map(check_vma=True)`` a result varies over every mesh axis that an operand
    varies over; forgetting that would lose the ``psum`` in gradients of replicated inputs.
    """
    varying = _varying_axes(operands)
    extra: dict[str, Any] = {"sharding": _core.get_cur_mesh_sharding()}
    if varying:
        extra["manual_axis_type"] = _core.ManualAxisType(varying=varying)
    return [_core.ShapedArray(shape, jax.numpy.dtype(dtype), **extra) for shape, dtype in outputs]


def with_equal_variance(operands: Sequence[Any]) -> list[Any]:
    """The operands, all made to vary over the mesh axes that any of them varies over.

    JAX's own primitives do so before they bind; the transpose of that is the ``psum``.
    """
    avals = [jax.typeof(operand) for operand in operands]
    wanted = _varying_axes(avals)
    if not wanted:
        return list(operands)
    return [
        jax.lax.pcast(operand, tuple(missing), to="varying")
        if (missing := wanted - _varying_axes([aval]))
        else operand
        for operand, aval in zip(operands, avals, strict=True)
    ]


def _varying_axes(avals: Sequence[Any]) -> frozenset[Any]:
    found: frozenset[Any] = frozenset()
    for aval in avals:
        found = found | aval.mat.varying
    return found


def is_zero(tangent: Any) -> bool:
    """Whether a tangent or cotangent is symbolically zero (also JAX's float0 arrays)."""
    return type(tangent) is ad.Zero or getattr(tangent, "dtype", None) == jax.dtypes.float0


def zero_tangent_of(aval: Any) -> Any:
    """The symbolic zero in the tangent space of ``aval``: float0 for ints and bools."""
    return ad.Zero(aval.to_tangent_aval())
