"""Arrays cut along explicit mesh axes, and functions that XLA runs: XLA cuts their operations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from .._compat.jax.sharding import (
    cut_by_xla,
    explicit_layout,
    is_about_sharding,
    mesh_of,
    spec_of,
)
from ..errors import ShardingError
from ..planner.sharding import is_whole
from . import primitives
from .inlined.coverage import shapes_alone
from .inlined.inline import run_of
from .op_protocol import OpLike


def call(op: OpLike, arrays: Sequence[Any]) -> list[Any]:
    """Run ``op`` on arrays or tracers, whole or cut.

    Raises:
        ShardingError: JAX cannot tell how a result is cut.
    """
    if op.aten is None or all(is_whole(explicit_layout(array)) for array in arrays):
        return primitives.call(op, *arrays)
    mesh: Any = mesh_of(arrays)
    try:
        # As JAX's own operations cut it; nothing runs.
        with jax.enable_x64(True):
            results = jax.make_jaxpr(run_of(op, shapes_alone(op)))(*arrays).out_avals
    except Exception as error:
        # JAX has no words of its own for some; these operations take whole arrays.
        if not (is_about_sharding(error) or _takes_whole(op, arrays)):
            raise
        words = str(error).splitlines()[0].rstrip(".")
        raise ShardingError(
            f"{op.label}: expected arrays whose layouts tell how the results are cut; JAX says: "
            f"{words}. Reshard them before (jax.sharding.reshard), or call "
            "jax.sharding.auto_axes(f, out_sharding=...), which says it."
        ) from error
    run = cut_by_xla(
        lambda *parts: tuple(primitives.call(op, *parts)), mesh, tuple(map(spec_of, results))
    )
    return list(run(*arrays))


def _takes_whole(op: OpLike, arrays: Sequence[Any]) -> bool:
    """Whether JAX can run ``op`` on whole arrays like these."""
    whole = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in arrays]
    try:
        with jax.enable_x64(True):
            jax.eval_shape(run_of(op, shapes_alone(op)), *whole)
    except Exception:
        return False
    return True
