"""Partial evaluation of a call that gives results and tangents together.

Forward mode is one torch call. Where JAX evaluates only the primal half of it now (reverse mode
through ``jax.checkpoint``, or through a loop that it differentiates forwards first), the call is
split again: a forward that saves residuals, and the linear part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .._compat.jax.partial_evaluation import (
    equation_with,
    is_variable,
    known_value,
    new_variable,
    saveable_by_policy,
    stage_by_default,
)
from .derivative_rules import call_linearize
from .op_protocol import OpLike, taken_apart
from .primitives import torch_call_p, torch_jvp_call_p, torch_linear_call_p


def split_unknown(trace: Any, *tracers: Any, op: OpLike) -> list[Any]:
    """While tracing: known primals, unknown tangents."""
    values = [known_value(tracer) for tracer in tracers]
    split = _primal_half(op)
    everything = all(value is not None for value in values)
    # Nothing is unknown, or the primals are as well: the joint call is staged as it stands.
    if split is None or everything or any(values[place] is None for place in split.primals):
        return stage_by_default(trace, torch_jvp_call_p, tracers, {"op": op})
    primals = [values[place] for place in split.primals]
    nonzeros = [index in split.wrt for index in range(len(split.op.inputs))]
    outputs, _, residuals, _ = call_linearize(True, nonzeros, *primals, op=split.op)
    linearized = split.op.family.linearize(split.op, split.wrt)
    ins, outs = linearized.grad_inputs, linearized.diff_outputs
    by_input = dict(zip(split.wrt, split.tangents, strict=True))
    moved = stage_by_default(
        trace,
        torch_linear_call_p,
        [*(trace.new_const(value) for value in residuals), *(tracers[by_input[i]] for i in ins)],
        {"linearized": linearized, "transposed": False, "ins": ins, "outs": outs},
    )
    return [*(trace.new_const(value) for value in outputs), *moved]


def split_equation(
    saveable: Callable[..., Any], unknown: Sequence[bool], instantiated: Sequence[bool], eqn: Any
) -> tuple[Any, Any, list[bool], list[bool], list[Any]]:
    """In a jaxpr (``jax.checkpoint``): what to compute now, what later, what to keep.

    Also of calls without tangents, which are computed again unless they are random.

    Returns:
        (equation known now, staged equation, unknown results, instantiated results, variables
        to keep), as JAX asks for them.
    """
    op = eqn.params["op"]
    split = _primal_half(op)
    count = len(eqn.outvars)
    # Operands that the staged half does not have by itself: JAX hands them over.
    kept = [
        variable
        for variable, there in zip(eqn.invars, instantiated, strict=True)
        if not there and is_variable(variable)
    ]
    # Run again, a random function would draw other numbers than those of the value.
    keep = op.draws or saveable_by_policy(saveable, eqn)
    if not any(unknown):
        if keep:
            return eqn, None, [False] * count, [False] * count, []
        # Computed now for the value, and again in the backward pass rather than kept.
        return eqn, eqn, [False] * count, [True] * count, kept
    # Without all primals nothing of it can be computed now.
    if split is None or any(unknown[place] for place in split.primals):
        return None, eqn, [True] * count, [True] * count, kept
    primals = [eqn.invars[place] for place in split.primals]
    outputs = eqn.outvars[: len(split.op.outputs)]
    tangents = eqn.outvars[len(split.op.outputs) :]
    unknown_out = [False] * len(outputs) + [True] * len(tangents)
    if not keep:
        now = equation_with(eqn, torch_call_p, primals, outputs, {"op": split.op})
        # The joint call runs in the backward pass as a whole, since nothing is kept for it.
        return now, eqn, unknown_out, [True] * count, kept
    linearized = split.op.family.linearize(split.op, split.wrt)
    forward = linearized.forward
    residuals = [new_variable(sig.shape, sig.dtype, eqn) for sig in linearized.residuals]
    now = equation_with(eqn, torch_call_p, primals, [*outputs, *residuals], {"op": forward})
    ins, outs = linearized.grad_inputs, linearized.diff_outputs
    by_input = dict(zip(split.wrt, split.tangents, strict=True))
    later = equation_with(
        eqn,
        torch_linear_call_p,
        [*primals, *residuals, *(eqn.invars[by_input[index]] for index in ins)],
        tangents,
        {"linearized": linearized, "transposed": False, "ins": ins, "outs": outs},
    )
    return now, later, unknown_out, unknown_out, [*kept, *residuals]


class _PrimalHalf:
    """How to take a joint call apart.

    Attributes:
        op: The function.
        wrt: Its inputs that carry a tangent.
        primals: For each of its inputs, which operand of the joint call it is.
        tangents: For each of ``wrt``, which operand its tangent is.
    """

    def __init__(self, op: OpLike, wrt: tuple[int, ...]) -> None:
        self.op = op
        self.wrt = wrt
        push = op.family.pushforward(op, wrt)
        self.tangents = tuple(
            place for place, index in enumerate(push.operands) if index >= len(op.inputs)
        )
        # Inputs are numbered first, then the tangents of `wrt`; states of generators are inputs.
        order = {index: place for place, index in enumerate(push.operands)}
        self.primals = tuple(order[index] for index in range(len(op.inputs)))


def _primal_half(op: OpLike) -> _PrimalHalf | None:
    apart = taken_apart(op)
    if apart is None:
        return None
    function, wrt = apart
    half = _PrimalHalf(function, wrt)
    linearized = function.family.linearize(function, wrt)
    # Both ways of differentiating must agree on which results move.
    moved = len(op.outputs) - len(function.outputs)
    return half if len(linearized.diff_outputs) == moved else None
