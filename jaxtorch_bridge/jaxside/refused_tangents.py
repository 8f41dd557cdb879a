"""Tangents that must not be used: what uses one is refused, and what does not is not.

JAX asks for the tangents of all results at once, and says only later which of them it uses: when it
transposes, when it compiles a program without what is dead in it, or when it reads a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jax

from .._compat.jax.abstract_values import (
    aval_of,
    is_zero,
    output_avals,
    with_equal_variance,
    zero_tangent_of,
)
from .._compat.jax.primitive_rules import Primitive, ad, batching, mlir, not_mapped
from .._compat.jax.unusable_values import Unusable
from ..errors import DifferentiationError

torch_refused_p = Primitive("torch_refused_tangent")


def refused_tangents(
    outputs: Sequence[Any], refused: Mapping[int, str], tangents: Sequence[Any]
) -> dict[int, Any]:
    """Tangents of the ``refused`` results, in place of what would be computed from ``tangents``."""
    # As a linear function of them, so that it stands among what JAX transposes.
    moving = with_equal_variance([tangent for tangent in tangents if not is_zero(tangent)])
    found = {}
    for index, words in refused.items():
        aval = aval_of(outputs[index]).to_tangent_aval()
        found[index] = torch_refused_p.bind(
            *moving, words=words, shape=tuple(aval.shape), dtype=str(aval.dtype)
        )
    return found


def _abstract(*avals: Any, words: str, shape: tuple[int, ...], dtype: str) -> Any:
    return output_avals([(shape, dtype)], avals)[0]


def _eager(*operands: Any, words: str, shape: tuple[int, ...], dtype: str) -> Unusable:
    avals = [jax.typeof(operand) for operand in operands]
    aval = _abstract(*avals, words=words, shape=shape, dtype=dtype)
    return Unusable(aval, DifferentiationError(words))


def _lower(_context: Any, *_operands: Any, words: str, **_params: Any) -> NoReturn:
    raise DifferentiationError(words)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    found = torch_refused_p.bind(*primals, **params)
    moving = [tangent for tangent in tangents if not is_zero(tangent)]
    return found, torch_refused_p.bind(*moving, **params) if moving else zero_tangent_of(
        aval_of(found)
    )


def _transpose(cotangent: Any, *operands: Any, words: str, **_params: Any) -> list[Any]:
    if not is_zero(cotangent):
        raise DifferentiationError(words)
    return [
        ad.Zero(aval_of(operand)) if ad.is_undefined_primal(operand) else None
        for operand in operands
    ]


def _batch(
    operands: Sequence[Any], dims: Sequence[Any], *, shape: tuple[int, ...], **params: Any
) -> tuple[Any, int]:
    pairs = zip(operands, dims, strict=True)
    size = next(operand.shape[dim] for operand, dim in pairs if dim is not not_mapped)
    return torch_refused_p.bind(*operands, shape=(size, *shape), **params), 0


torch_refused_p.def_impl(_eager)
torch_refused_p.def_abstract_eval(_abstract)
ad.primitive_jvps[torch_refused_p] = _jvp
ad.primitive_transposes[torch_refused_p] = _transpose
batching.primitive_batchers[torch_refused_p] = _batch
mlir.register_lowering(torch_refused_p, _lower)
