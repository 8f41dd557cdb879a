"""What may be left out of a jaxpr when some results are not used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._compat.jax.partial_evaluation import equation_with
from .op_protocol import saved_for, taken_apart
from .primitives import torch_call_p, torch_linear_call_p


def forward_rule(used: Sequence[bool], eqn: Any) -> tuple[list[bool], Any]:
    """Residuals that nobody reads are not saved."""
    if not any(used):
        return [False] * len(eqn.invars), None
    linearized = saved_for(eqn.params["op"])
    if linearized is not None:
        count = len(linearized.op.outputs)
        # All of them or none: one forward saves all that the derivative needs.
        if not any(used[count:]):
            plain = {"op": linearized.op}
            eqn = equation_with(eqn, torch_call_p, eqn.invars, eqn.outvars[:count], plain)
    return [True] * len(eqn.invars), eqn


def jvp_rule(used: Sequence[bool], eqn: Any) -> tuple[list[bool], Any]:
    """Tangents that nobody reads are not computed."""
    if not any(used):
        return [False] * len(eqn.invars), None
    apart = taken_apart(eqn.params["op"])
    assert apart is not None  # the primitive is bound to no other op
    function, wrt = apart
    count = len(function.outputs)
    if any(used[count:]):
        return [True] * len(eqn.invars), eqn
    pushed = function.family.pushforward(function, wrt)
    # The joint call has operands in an order of its own; those of the function are picked.
    order = {index: place for place, index in enumerate(pushed.operands)}
    places = [order[index] for index in range(len(function.inputs))]
    primals = [eqn.invars[place] for place in places]
    kept = equation_with(eqn, torch_call_p, primals, eqn.outvars[:count], {"op": function})
    # So what computes the tangents is dead as well.
    return [place in places for place in range(len(eqn.invars))], kept


def linear_rule(used: Sequence[bool], eqn: Any) -> tuple[list[bool], Any]:
    """Gradients that nobody asks for are cut out of the backward graph."""
    if not any(used):
        return [False] * len(eqn.invars), None
    params = dict(eqn.params)
    # Transposed, its results are cotangents of `ins`, and otherwise tangents of `outs`.
    word = "ins" if params["transposed"] else "outs"
    params[word] = tuple(index for index, flag in zip(params[word], used, strict=True) if flag)
    if all(used):
        return [True] * len(eqn.invars), eqn
    results = [variable for variable, flag in zip(eqn.outvars, used, strict=True) if flag]
    return [True] * len(eqn.invars), equation_with(
        eqn, torch_linear_call_p, eqn.invars, results, params
    )
