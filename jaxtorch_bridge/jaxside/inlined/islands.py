"""Torch calls amid the JAX operations of a function that XLA runs: what has no lowering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._compat.jax.abstract_values import output_avals, with_equal_variance
from ..._compat.jax.lowering import on_every_device
from ..._compat.jax.primitive_rules import Primitive, mlir
from ..custom_call import lower_custom_call
from ..op_protocol import OpLike, shapes_of

# Bound while a program is lowered, when it has been differentiated and batched: no other rules.
torch_island_p = Primitive("torch_island")
torch_island_p.multiple_results = True


def call_island(
    context: Any,
    op: OpLike,
    arrays: Sequence[Any],
    *,
    check: bool = False,
    alike: bool = False,
) -> list[Any]:
    """Run an island on tracers of a program that is being lowered.

    Args:
        context: Of the lowering rule that writes the program.
        op: What to run.
        arrays: What it takes. In a program that XLA partitions they are gathered.
        check: It fails or gives one boolean, which is true, and runs even if nobody reads that.
        alike: It gives the same wherever it runs.
    """

    def bind(*arrays: Any) -> list[Any]:
        return list(torch_island_p.bind(*with_equal_variance(arrays), op=op, check=check))

    return on_every_device(bind, context, arrays, alike=alike)


def _abstract(*avals: Any, op: OpLike, check: bool) -> list[Any]:
    return output_avals(shapes_of(op.outputs), avals)


torch_island_p.def_abstract_eval(_abstract)
for _platform in ("cpu", "cuda"):
    mlir.register_lowering(torch_island_p, lower_custom_call, platform=_platform)
