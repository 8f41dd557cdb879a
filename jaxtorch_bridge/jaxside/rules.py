"""Differentiation and batching rules of the two primitives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from .._compat.jax_internals import (
    ad,
    aval_of,
    batching,
    is_zero,
    not_mapped,
    zero_tangent_of,
)
from .ops import LinearizedLike, OpLike
from .primitives import nonlinear_count, torch_call_p, torch_linear_call_p


def _call_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, op: OpLike
) -> tuple[list[Any], list[Any]]:
    """One forward that saves residuals; tangents by the linear call on them."""
    wrt = tuple(
        index
        for index, tangent in enumerate(tangents)
        if op.inputs[index].differentiable and not is_zero(tangent)
    )
    linearized = op.linearize(wrt) if wrt else None
    if linearized is None or not linearized.diff_outputs:
        outputs = torch_call_p.bind(*primals, op=op)
        return list(outputs), [zero_tangent_of(aval_of(output)) for output in outputs]
    results = torch_call_p.bind(*primals, op=linearized.forward or op)
    outputs, residuals = results[: len(op.outputs)], results[len(op.outputs) :]
    moved = torch_linear_call_p.bind(
        *primals,
        *residuals,
        *(tangents[index] for index in wrt),
        op=op,
        linearized=linearized,
        transposed=False,
    )
    by_output = dict(zip(linearized.diff_outputs, moved, strict=True))
    out_tangents = [by_output.get(index) for index in range(len(outputs))]
    return list(outputs), [
        zero_tangent_of(aval_of(output)) if tangent is None else tangent
        for output, tangent in zip(outputs, out_tangents, strict=True)
    ]


def _linear_transpose(
    cotangents: Sequence[Any],
    *operands: Any,
    op: OpLike,
    linearized: LinearizedLike,
    transposed: bool,
) -> list[Any]:
    """Tangents forwards become cotangents backwards."""
    if transposed:
        raise NotImplementedError(f"{op.label}: a backward pass cannot be transposed yet.")
    count = nonlinear_count(linearized, op)
    gradients = torch_linear_call_p.bind(
        *operands[:count],
        *(ad.instantiate_zeros(cotangent) for cotangent in cotangents),
        op=op,
        linearized=linearized,
        transposed=True,
    )
    by_input = dict(zip(linearized.grad_inputs, gradients, strict=True))
    linear = [
        by_input.get(index, ad.Zero(aval_of(operand)))
        for index, operand in zip(linearized.wrt, operands[count:], strict=True)
    ]
    return [None] * count + linear


def _linear_jvp(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    op: OpLike,
    linearized: LinearizedLike,
    transposed: bool,
) -> tuple[Any, Any]:
    raise NotImplementedError(
        f"{op.label}: second-order derivatives are not available yet; first-order reverse mode is."
    )


def _batch_one_by_one(
    primitive: Any, operands: Sequence[Any], dims: Sequence[Any], params: dict[str, Any]
) -> tuple[list[Any], list[int]]:
    """One torch call for each element of the batch, whatever the function does."""
    is_mapped = [dim is not not_mapped for dim in dims]
    mapped = [
        jax.numpy.moveaxis(operand, dim, 0)
        for operand, dim, flag in zip(operands, dims, is_mapped, strict=True)
        if flag
    ]

    def one(elements: Sequence[Any]) -> list[Any]:
        rest = iter(elements)
        return list(
            primitive.bind(
                *(
                    next(rest) if flag else operand
                    for operand, flag in zip(operands, is_mapped, strict=True)
                ),
                **params,
            )
        )

    results = jax.lax.map(one, mapped)
    return results, [0] * len(results)


ad.primitive_jvps[torch_call_p] = _call_jvp
ad.primitive_jvps[torch_linear_call_p] = _linear_jvp
ad.primitive_transposes[torch_linear_call_p] = _linear_transpose
batching.primitive_batchers[torch_call_p] = lambda operands, dims, **params: _batch_one_by_one(
    torch_call_p, operands, dims, params
)
batching.primitive_batchers[torch_linear_call_p] = lambda operands, dims, **params: (
    _batch_one_by_one(torch_linear_call_p, operands, dims, params)
)
