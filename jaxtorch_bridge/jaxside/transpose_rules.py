"""Transposes of torch calls that are linear in some operands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .._compat.jax.abstract_values import aval_of, is_zero
from .._compat.jax.arrays import concrete_value
from .._compat.jax.primitive_rules import ad
from .derivative_rules import call_linearize
from .op_protocol import Indices, OpLike, saved_for, taken_apart
from .primitives import linear_call


def call_transpose(cotangents: Sequence[Any], *operands: Any, op: OpLike) -> list[Any]:
    """Of a torch call: the pullback at 0, which is the same everywhere if the call is linear."""
    saved = saved_for(op)
    # Residuals are no linear results, and nobody gives cotangents of them.
    function = op if saved is None else saved.op
    there = _there(cotangents[: len(function.outputs)])
    asked = _asked(operands)
    found: dict[int, Any] = {}
    if there and asked:
        linearized = function.family.transposed(
            function, asked, there, lambda: [_value(operand) for operand in operands]
        )
        primals = [
            jax.numpy.zeros(operand.aval.shape, operand.aval.dtype) if index in asked else operand
            for index, operand in _all(operands)
        ]
        given = [cotangents[index] for index in there]
        results = linear_call(linearized, True, asked, there, primals, given)
        found = dict(zip(asked, results, strict=True))
    return _for_all(operands, found)


def jvp_call_transpose(cotangents: Sequence[Any], *operands: Any, op: OpLike) -> list[Any]:
    """Of a call with tangents: it is linear in these, whatever the function is."""
    apart = taken_apart(op)
    assert apart is not None  # the primitive is bound to no other op
    function, wrt = apart
    pushed = function.family.pushforward(function, wrt)
    count = len(function.inputs)
    # The function's inputs are numbered first, then the tangents of `wrt`.
    numbers = pushed.operands
    undefined = [numbers[place] for place in _asked(operands)]
    if any(number < count for number in undefined):
        # Linear in both, then.
        return call_transpose(cotangents, *operands, op=op)
    moved = cotangents[len(function.outputs) :]
    there = tuple(pushed.diff_outputs[index] for index in _there(moved))
    asked = tuple(sorted(wrt[number - count] for number in undefined))
    found: dict[int, Any] = {}
    if there and asked:
        places = {number: place for place, number in enumerate(numbers)}
        primals = [operands[places[index]] for index in range(count)]
        nonzeros = [index in wrt for index in range(count)]
        _, _, residuals, _ = call_linearize(True, nonzeros, *primals, op=function)
        linearized = function.family.linearize(function, wrt)
        given = [cotangent for cotangent in moved if not is_zero(cotangent)]
        results = linear_call(linearized, True, asked, there, residuals, given)
        found = {
            places[count + wrt.index(index)]: result
            for index, result in zip(asked, results, strict=True)
        }
    return _for_all(operands, found)


def _all(operands: Sequence[Any]) -> list[tuple[int, Any]]:
    return list(enumerate(operands))


def _there(cotangents: Sequence[Any]) -> Indices:
    return tuple(index for index, cotangent in _all(cotangents) if not is_zero(cotangent))


def _asked(operands: Sequence[Any]) -> Indices:
    return tuple(index for index, each in _all(operands) if ad.is_undefined_primal(each))


def _for_all(operands: Sequence[Any], found: dict[int, Any]) -> list[Any]:
    """None for what JAX does not transpose by."""
    return [
        found.get(index, ad.Zero(aval_of(operand))) if ad.is_undefined_primal(operand) else None
        for index, operand in _all(operands)
    ]


def _value(operand: Any) -> np.ndarray | None:
    found = None if ad.is_undefined_primal(operand) else concrete_value(operand)
    return None if found is None else np.asarray(found)
