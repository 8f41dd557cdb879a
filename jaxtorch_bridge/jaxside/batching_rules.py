"""Batching: one torch call for the whole batch where torch can, otherwise one by one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .._compat.jax.primitive_rules import not_mapped
from ..errors import DynamicSizeError
from .derivative_rules import call_linearize
from .op_protocol import Indices, LinearizedLike, OpLike, taken_apart
from .primitives import call, linear_call, torch_call_p, torch_linear_call_p
from .sharded_arrays import batch_axes, batch_per_shard, part_of


def batch_call(
    operands: Sequence[Any], dims: Sequence[Any], *, op: OpLike
) -> tuple[list[Any], list[Any]]:
    """Of a torch call, with or without tangents."""
    axes = batch_axes(operands, dims)
    if axes:
        # Asked for ahead of the shards: out_specs must say which results have no batch axis.
        part = op.family.batched(op, part_of(_size(operands, dims), operands, axes), _axes(dims))
        out_dims = [not_mapped if i in part.unbatched else 0 for i in range(len(op.outputs))]
        return batch_per_shard(
            op.label,
            lambda *parts: batch_call(parts, dims, op=op)[0],
            operands,
            dims,
            axes,
            out_dims,
        ), out_dims
    found = op.family.batched(op, _size(operands, dims), _axes(dims))
    if found.op is None:
        apart = taken_apart(op)
        # Only tangents are batched (as in a Jacobian): torch.vmap would draw random numbers for
        # each of them, though the function has run on one set of them.
        if apart is not None and found.unbatched:
            return _batch_tangents(operands, dims, *apart)
        bind = functools.partial(torch_call_p.bind, op=op)
        return _one_by_one(bind, operands, dims, op.unrolled)
    results = call(found.op, *operands)
    return results, [not_mapped if i in found.unbatched else 0 for i in range(len(results))]


def _batch_tangents(
    operands: Sequence[Any], dims: Sequence[Any], function: OpLike, wrt: Indices
) -> tuple[list[Any], list[Any]]:
    """Of a call with tangents of which only the tangents are batched: the function runs once."""
    pushed = function.family.pushforward(function, wrt)
    # Operands are numbered as the inputs, then the tangents in the order of `wrt`; the joint call
    # has them in an order of its own.
    places = {index: i for i, index in enumerate(pushed.operands)}
    count = len(function.inputs)
    primals = [operands[places[index]] for index in range(count)]
    nonzeros = [index in wrt for index in range(count)]
    outputs, _, residuals, _ = call_linearize(False, nonzeros, *primals, op=function)
    linearized = function.family.linearize(function, wrt)
    ins, outs = linearized.grad_inputs, linearized.diff_outputs
    tangents = [places[count + wrt.index(index)] for index in ins]
    moved, moved_dims = batch_linear_call(
        [*residuals, *(operands[place] for place in tangents)],
        [*(not_mapped for _ in residuals), *(dims[place] for place in tangents)],
        linearized=linearized,
        transposed=False,
        ins=ins,
        outs=outs,
    )
    return [*outputs, *moved], [*(not_mapped for _ in outputs), *moved_dims]


def batch_linear_call(
    operands: Sequence[Any],
    dims: Sequence[Any],
    *,
    linearized: LinearizedLike,
    transposed: bool,
    ins: Indices,
    outs: Indices,
) -> tuple[list[Any], list[Any]]:
    """Of the linear part; stays a linear call, so that it can be transposed and differentiated."""
    axes = batch_axes(operands, dims)
    if axes:
        rule = functools.partial(
            batch_linear_call, linearized=linearized, transposed=transposed, ins=ins, outs=outs
        )
        count = len(linearized.linear_sigs(transposed, ins, outs)[1])
        results = batch_per_shard(
            linearized.label,
            lambda *parts: rule(parts, dims)[0],
            operands,
            dims,
            axes,
            [0] * count,
        )
        return results, [0] * count
    size = _size(operands, dims)
    count = linearized.nonlinear_count
    params = {"transposed": transposed, "ins": ins, "outs": outs}
    found = linearized.batched(size, _axes(dims[:count]), transposed, ins, outs)
    if found is None:
        bind = functools.partial(torch_linear_call_p.bind, linearized=linearized, **params)
        return _one_by_one(bind, operands, dims, linearized.unrolled)
    # The linear operands carry the batch in front, each of them; only inputs and residuals may go
    # without.
    linear = [
        jax.numpy.broadcast_to(operand, (size, *operand.shape))
        if dim is not_mapped
        else jax.numpy.moveaxis(operand, dim, 0)
        for operand, dim in zip(operands[count:], dims[count:], strict=True)
    ]
    results = linear_call(found, transposed, ins, outs, operands[:count], linear)
    return results, [0] * len(results)


def _size(operands: Sequence[Any], dims: Sequence[Any]) -> int:
    pairs = zip(operands, dims, strict=True)
    size = next(operand.shape[dim] for operand, dim in pairs if dim is not not_mapped)
    if isinstance(size, int):
        return size
    raise DynamicSizeError(
        f"jax.vmap over a torch call: expected a batch of known size, got `{size}`. Let the torch "
        "function take the whole batch, or export once for each size."
    )


def _axes(dims: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(None if dim is not_mapped else int(dim) for dim in dims)


def _one_by_one(
    bind: Callable[..., Any], operands: Sequence[Any], dims: Sequence[Any], unrolled: bool
) -> tuple[list[Any], list[Any]]:
    """One torch call for each element of the batch, whatever the function does."""
    is_mapped = [dim is not not_mapped for dim in dims]
    mapped = [
        jax.numpy.moveaxis(operand, dim, 0)
        for operand, dim, flag in zip(operands, dims, is_mapped, strict=True)
        if flag
    ]

    def one(elements: Sequence[Any]) -> list[Any]:
        rest = iter(elements)
        pairs = zip(operands, is_mapped, strict=True)
        return list(bind(*(next(rest) if flag else operand for operand, flag in pairs)))

    # Of an empty batch nothing is run that could tell the shapes of its results; `map` traces.
    if unrolled and mapped[0].shape[0] > 0:
        count = mapped[0].shape[0]
        columns = zip(*(one([array[i] for array in mapped]) for i in range(count)), strict=True)
        results = [jax.numpy.stack(column) for column in columns]
    else:
        results = jax.lax.map(one, mapped)
    return results, [0] * len(results)
