"""The two primitives: a torch call, and the linear part of its derivative.

``torch_call``: arrays to arrays, by an op.

``torch_linear_call``: linear in its last operands. Operands are the function's inputs, the
residuals that the forward saved, and tangents (or, transposed, cotangents). The inputs are
there so that higher orders can differentiate the function itself: the backward graph must not
be differentiated again, since it holds detached copies of what it saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._compat.jax_internals import Primitive, mlir, output_avals, with_equal_variance
from . import lowering
from .ops import LinearizedLike, OpLike, shapes_of

torch_call_p = Primitive("torch_call")
torch_call_p.multiple_results = True

torch_linear_call_p = Primitive("torch_linear_call")
torch_linear_call_p.multiple_results = True


def call(op: OpLike, *arrays: Any) -> list[Any]:
    """Run ``op`` on arrays or tracers."""
    return list(torch_call_p.bind(*with_equal_variance(arrays), op=op))


def linear_results(linearized: LinearizedLike, op: OpLike, transposed: bool) -> list[Any]:
    """Signatures of what the linear call returns."""
    if transposed:
        return [op.inputs[index] for index in linearized.grad_inputs]
    return [op.outputs[index] for index in linearized.diff_outputs]


def nonlinear_count(linearized: LinearizedLike, op: OpLike) -> int:
    """How many operands come before the linear ones: inputs and residuals."""
    return len(op.inputs) + len(linearized.residuals)


def _call_impl(*arrays: Any, op: OpLike) -> Any:
    return lowering.jitted(op, op.key, lambda *xs: torch_call_p.bind(*xs, op=op))(*arrays)


def _call_abstract(*avals: Any, op: OpLike) -> list[Any]:
    return output_avals(shapes_of(op.outputs), avals)


def _linear_impl(*operands: Any, op: OpLike, linearized: LinearizedLike, transposed: bool) -> Any:
    def run(*xs: Any) -> Any:
        return torch_linear_call_p.bind(*xs, op=op, linearized=linearized, transposed=transposed)

    # The compiled form holds the linearization, so that no other can have its id. (What it is
    # by would not do: a function whose surroundings changed is linearized anew.)
    name = f"linear {id(linearized)} {transposed}"
    return lowering.jitted(op, name, run)(*operands)


def _linear_abstract(
    *avals: Any, op: OpLike, linearized: LinearizedLike, transposed: bool
) -> list[Any]:
    return output_avals(shapes_of(linear_results(linearized, op, transposed)), avals)


def _lower_linear(
    context: Any, *operands: Any, op: OpLike, linearized: LinearizedLike, transposed: bool
) -> Sequence[Any]:
    if not transposed:
        raise NotImplementedError(
            f"{op.label}: forward-mode derivatives (jax.jvp, jax.jacfwd) are not available yet; "
            "reverse mode (jax.grad, jax.vjp, jax.jacrev of one output at a time) is."
        )
    # Inputs that the backward graph does not read are left out, so that XLA can free them.
    inputs = [operands[index] for index in linearized.pullback_inputs]
    rest = operands[len(op.inputs) :]
    avals = [context.avals_in[index] for index in linearized.pullback_inputs]
    avals += context.avals_in[len(op.inputs) :]
    narrowed = context.replace(avals_in=avals)
    return lowering.lower_call(narrowed, *inputs, *rest, op=linearized.pullback)


torch_call_p.def_impl(_call_impl)
torch_call_p.def_abstract_eval(_call_abstract)
torch_linear_call_p.def_impl(_linear_impl)
torch_linear_call_p.def_abstract_eval(_linear_abstract)

for _platform in ("cpu", "cuda"):
    mlir.register_lowering(torch_call_p, lowering.lower_call, platform=_platform)
    mlir.register_lowering(torch_linear_call_p, _lower_linear, platform=_platform)
