"""Derivatives of the primitives: forward mode, linearization, transposition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._compat.jax.abstract_values import aval_of, is_zero, zero_tangent_of
from .._compat.jax.primitive_rules import ad
from .op_protocol import Indices, LinearizedLike, OpLike, saved_for
from .primitives import call, jvp_call, linear_call
from .refused_tangents import refused_tangents


def _carrying(op: OpLike, moves: Sequence[bool]) -> Indices:
    """The inputs that carry a tangent."""
    pairs = zip(op.inputs, moves, strict=True)
    # JAX may have a tangent where a contract or `nondiff` excludes the input; it is dropped here.
    return tuple(
        index for index, (sig, moving) in enumerate(pairs) if sig.differentiable and moving
    )


def _with_zeros(outputs: Sequence[Any], moved: dict[int, Any]) -> list[Any]:
    """A tangent for every output, symbolically zero where there is none."""
    return [
        moved[index] if index in moved else zero_tangent_of(aval_of(output))
        for index, output in enumerate(outputs)
    ]


def call_jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, op: OpLike
) -> tuple[list[Any], list[Any]]:
    """Results and tangents from one torch call."""
    wrt = _carrying(op, [not is_zero(tangent) for tangent in tangents])
    linearized = saved_for(op)
    if linearized is not None:
        return _forward_jvp(primals, tangents, op, linearized, wrt)
    push = op.family.pushforward(op, wrt) if wrt else None
    if push is None:
        outputs = call(op, *primals)
        return outputs, _with_zeros(outputs, {})
    moving = [tangents[index] for index in wrt]
    # No result depends on what moves: the function alone, and zeros.
    if push.op is None:
        outputs, moved = call(op, *primals), []
    else:
        operands = [*primals, *moving]
        results = jvp_call(push.op, *(operands[index] for index in push.operands))
        outputs, moved = results[: len(op.outputs)], results[len(op.outputs) :]
    found = dict(zip(push.diff_outputs, moved, strict=True))
    found |= refused_tangents(outputs, push.refused, moving)
    return outputs, _with_zeros(outputs, found)


def _forward_jvp(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    op: OpLike,
    linearized: LinearizedLike,
    wrt: Indices,
) -> tuple[list[Any], list[Any]]:
    """Of an op that returns residuals as well, which count as constants.

    Whoever uses them differentiates the function of the inputs instead.
    """
    results = call(op, *primals)
    # The residuals at hand are those of this derivative, so the function need not run again.
    if wrt == linearized.wrt:
        by_input = dict(zip(wrt, (tangents[index] for index in wrt), strict=True))
        ins, outs = linearized.grad_inputs, linearized.diff_outputs
        residuals = results[len(linearized.op.outputs) :]
        linear = [by_input[index] for index in ins]
        moved = linear_call(linearized, False, ins, outs, [*primals, *residuals], linear)
        found = dict(zip(outs, moved, strict=True))
        found |= refused_tangents(results, linearized.refused, list(by_input.values()))
        return results, _with_zeros(results, found)
    # By other inputs than the residuals are for: the function runs once more, for its tangents.
    _, moved = call_jvp(primals, tangents, op=linearized.op)
    moving = {index: tangent for index, tangent in enumerate(moved) if not is_zero(tangent)}
    return results, _with_zeros(results, moving)


def call_linearize(
    is_vjp: bool, nonzeros: Sequence[bool], *primals: Any, op: OpLike
) -> tuple[list[Any], list[bool], Any, Callable[..., Any]]:
    """One forward that saves residuals; tangents by the linear call on them."""
    wrt = _carrying(op, nonzeros)
    saved = saved_for(op)
    function = op if saved is None else saved.op
    linearized: Any = None
    if wrt:
        same = saved is not None and saved.wrt == wrt
        linearized = saved if same else function.family.linearize(function, wrt)
    if linearized is None or not (linearized.diff_outputs or linearized.refused):
        outputs = call(op, *primals)
        zeros = _with_zeros(outputs, {})
        return outputs, [False] * len(outputs), (), lambda residuals, *tangents: zeros
    count = len(function.outputs)
    if saved is linearized:
        outputs = call(op, *primals)
        residuals = outputs[count:]
    else:
        results = call(linearized.forward, *primals)
        outputs, residuals = results[:count], results[count:]
        if saved is not None:
            # What the op saved for other inputs is a result as well, which this forward does not
            # give.
            outputs = [*outputs, *call(op, *primals)[count:]]
    ins, outs = linearized.grad_inputs, linearized.diff_outputs
    zeros = _with_zeros(outputs, {})
    if not any(isinstance(primal, jax.core.Tracer) for primal in primals):
        linearized = linearized.as_of_now(is_vjp)

    def linear(residuals: Sequence[Any], *tangents: Any) -> list[Any]:
        # Torch is called on arrays; a symbolic zero is none.
        asked = [ad.instantiate_zeros(tangents[index]) for index in ins]
        results = linear_call(linearized, False, ins, outs, residuals, asked) if outs else []
        moved = dict(zip(outs, results, strict=True))
        moving = [tangents[index] for index in wrt]
        moved |= refused_tangents(outputs, linearized.refused, moving)
        return [moved.get(index, zero) for index, zero in enumerate(zeros)]

    moves = [index in outs or index in linearized.refused for index in range(len(outputs))]
    return outputs, moves, [*primals, *residuals], linear


def linear_jvp(
    primals: Sequence[Any],
    tangents: Sequence[Any],
    *,
    linearized: LinearizedLike,
    transposed: bool,
    ins: Indices,
    outs: Indices,
) -> tuple[list[Any], list[Any]]:
    """Linear in the last operands; by the others, the function's own next derivative."""
    count = linearized.nonlinear_count
    # The backward graph holds detached copies of what was saved: differentiated by the inputs it
    # would give wrong numbers without an error. So the function itself is.
    if not all(is_zero(tangent) for tangent in tangents[:count]):
        function = linearized.function(transposed, ins, outs)
        return call_jvp(
            [primals[index] for index in function.operands],
            [tangents[index] for index in function.operands],
            op=function.op,
        )

    def run(linear: Sequence[Any]) -> list[Any]:
        return linear_call(linearized, transposed, ins, outs, primals[:count], linear)

    outputs = run(primals[count:])
    if all(is_zero(tangent) for tangent in tangents):
        return outputs, _with_zeros(outputs, {})
    return outputs, run([ad.instantiate_zeros(tangent) for tangent in tangents[count:]])


def linear_linearize(
    is_vjp: bool,
    nonzeros: Sequence[bool],
    *primals: Any,
    linearized: LinearizedLike,
    transposed: bool,
    ins: Indices,
    outs: Indices,
) -> tuple[list[Any], list[bool], Any, Callable[..., Any]]:
    """The same, for reverse mode over it."""
    count = linearized.nonlinear_count
    # Residuals are functions of the inputs, and count as constants.
    if any(nonzeros[:count]):
        function = linearized.function(transposed, ins, outs)
        outputs, moves, residuals, linear = call_linearize(
            is_vjp,
            [nonzeros[index] for index in function.operands],
            *(primals[index] for index in function.operands),
            op=function.op,
        )
        return (
            outputs,
            moves,
            residuals,
            lambda residuals, *tangents: linear(
                residuals, *(tangents[index] for index in function.operands)
            ),
        )

    def run(nonlinear: Sequence[Any], linear: Sequence[Any]) -> list[Any]:
        return linear_call(linearized, transposed, ins, outs, nonlinear, linear)

    def moved(residuals: Sequence[Any], *tangents: Any) -> list[Any]:
        return run(residuals, [ad.instantiate_zeros(tangent) for tangent in tangents[count:]])

    outputs = run(primals[:count], primals[count:])
    # What is linear has one derivative everywhere, so that no linear operand has to be kept.
    return outputs, [True] * len(outputs), primals[:count], moved


def linear_transpose(
    cotangents: Sequence[Any],
    *operands: Any,
    linearized: LinearizedLike,
    transposed: bool,
    ins: Indices,
    outs: Indices,
) -> list[Any]:
    """Tangents forwards become cotangents backwards, and the other way round.

    Cotangents that are symbolically zero are left out: the backward graph is cut accordingly.
    """
    count = linearized.nonlinear_count
    nonlinear, linear = operands[:count], operands[count:]
    results, arguments = (ins, outs) if transposed else (outs, ins)
    there = tuple(index for index, ct in zip(results, cotangents, strict=True) if not is_zero(ct))
    asked = tuple(
        index
        for index, operand in zip(arguments, linear, strict=True)
        if ad.is_undefined_primal(operand)
    )
    found: dict[int, Any] = {}
    if there and asked:
        given = [cotangent for cotangent in cotangents if not is_zero(cotangent)]
        # `ins` and `outs` are the function's, whichever way the call goes.
        narrowed = (there, asked) if transposed else (asked, there)
        found = dict(
            zip(
                asked,
                linear_call(linearized, not transposed, *narrowed, nonlinear, given),
                strict=True,
            )
        )
    # None for all that JAX does not transpose by: inputs and residuals count as constants here.
    return [None] * count + [
        found.get(index, ad.Zero(aval_of(operand))) if ad.is_undefined_primal(operand) else None
        for index, operand in zip(arguments, linear, strict=True)
    ]
