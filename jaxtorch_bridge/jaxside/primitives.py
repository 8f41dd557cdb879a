"""The primitives: a torch call, the same with its tangents, and the linear part of a derivative.

``torch_call``: arrays to arrays, by an op.

``torch_jvp_call``: the same; the op gives the results and the tangents of another op in one run.
It is a primitive of its own because JAX may have to take it apart again; see
`partial_evaluation`.

``torch_linear_call``: linear in its last operands. Operands are the function's inputs, the
residuals that the forward saved, and tangents of the inputs ``ins`` (transposed: cotangents of
the outputs ``outs``). Results are tangents of ``outs`` (transposed: cotangents of ``ins``). The
inputs are there so that higher orders can differentiate the function itself: the backward graph
must not be differentiated again, since it holds detached copies of what it saved.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._compat.jax.abstract_values import output_avals, with_equal_variance
from .._compat.jax.primitive_rules import Primitive, mlir
from .._compat.jax.sharding import explicit_layout
from ..planner.sharding import is_whole, refuse_sharded
from . import lowering
from .eager_calls import finished
from .op_protocol import Indices, LinearizedLike, OpLike, shapes_of

torch_call_p = Primitive("torch_call")
torch_call_p.multiple_results = True

torch_jvp_call_p = Primitive("torch_jvp_call")
torch_jvp_call_p.multiple_results = True

torch_linear_call_p = Primitive("torch_linear_call")
torch_linear_call_p.multiple_results = True


def call(op: OpLike, *arrays: Any) -> list[Any]:
    """Run ``op`` on arrays or tracers."""
    # As JAX's own primitives do under `shard_map`: the transpose of that is the psum of gradients.
    return list(torch_call_p.bind(*with_equal_variance(arrays), op=op))


def jvp_call(op: OpLike, *arrays: Any) -> list[Any]:
    """Run ``op``, which gives results and tangents."""
    return list(torch_jvp_call_p.bind(*with_equal_variance(arrays), op=op))


def linear_call(
    linearized: LinearizedLike,
    transposed: bool,
    ins: Indices,
    outs: Indices,
    nonlinear: Sequence[Any],
    linear: Sequence[Any],
) -> list[Any]:
    """The linear part of a derivative at ``nonlinear`` (inputs and residuals)."""
    return list(
        torch_linear_call_p.bind(
            *with_equal_variance([*nonlinear, *linear]),
            linearized=linearized,
            transposed=transposed,
            ins=ins,
            outs=outs,
        )
    )


def _call_impl(*arrays: Any, op: OpLike) -> Any:
    # By the key, since all ops of a function share one keeper. A joint call comes here as well:
    # once it runs, JAX takes nothing apart any more.
    compiled = lowering.jitted(op, op.key, lambda *xs: torch_call_p.bind(*xs, op=op))
    try:
        return finished(compiled, arrays, op.watch)
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        # JAX 0.10 raises a failed call of a known executable as a plain ValueError.
        failure = op.translated(error)
        if failure is None:
            raise
        # From torch's exception, if there is one, and not from JAX's.
        raise failure from failure.__cause__


def _call_abstract(*avals: Any, op: OpLike) -> list[Any]:
    _refuse_sharded(op.label, [sig.path for sig in op.inputs], avals)
    return output_avals(shapes_of(op.outputs), avals)


def _refuse_sharded(label: str, paths: Sequence[str], avals: Sequence[Any]) -> None:
    """An opaque call on sharded operands would make XLA gather them."""
    for path, aval in zip(paths, avals, strict=True):
        layout = explicit_layout(aval)
        if not is_whole(layout):
            raise refuse_sharded(label, path, layout)


def _linear_impl(
    *operands: Any, linearized: LinearizedLike, transposed: bool, ins: Indices, outs: Indices
) -> Any:
    linearized.refuse_changed()
    found = linearized.linear_call(transposed, ins, outs)
    return _call_impl(*(operands[index] for index in found.operands), op=found.op)


def _linear_abstract(
    *avals: Any, linearized: LinearizedLike, transposed: bool, ins: Indices, outs: Indices
) -> list[Any]:
    _, results = linearized.linear_sigs(transposed, ins, outs)
    _refuse_sharded(linearized.label, [f"operand {i}" for i in range(len(avals))], avals)
    return output_avals(shapes_of(results), avals)


def _lower_linear(
    context: Any,
    *operands: Any,
    linearized: LinearizedLike,
    transposed: bool,
    ins: Indices,
    outs: Indices,
    lower: Callable[..., Sequence[Any]],
) -> Sequence[Any]:
    # Operands that the linear call's op does not read are left out, so that XLA can free them.
    found = linearized.linear_call(transposed, ins, outs)
    # The lowering takes the operands' layouts from the context, which has to lose the same ones.
    narrowed = context.replace(avals_in=[context.avals_in[index] for index in found.operands])
    read = [operands[index] for index in found.operands]
    return lower(narrowed, *read, op=found.op)


for _primitive in (torch_call_p, torch_jvp_call_p):
    _primitive.def_impl(_call_impl)
    _primitive.def_abstract_eval(_call_abstract)
torch_linear_call_p.def_impl(_linear_impl)
torch_linear_call_p.def_abstract_eval(_linear_abstract)

# Torch and the native handler run on the first two.
for _platform, _lower in (
    ("cpu", lowering.lower_call),
    ("cuda", lowering.lower_call),
    ("tpu", lowering.lower_without_torch),
):
    mlir.register_lowering(torch_call_p, _lower, platform=_platform)
    mlir.register_lowering(torch_jvp_call_p, _lower, platform=_platform)
    mlir.register_lowering(
        torch_linear_call_p, functools.partial(_lower_linear, lower=_lower), platform=_platform
    )
