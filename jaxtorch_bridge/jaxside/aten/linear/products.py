"""Matrix products and convolutions. Float32 at the full precision, as torch's default has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import lax

from ..batches import lowers_batches, of_matrices
from ..registry import CannotLowerError, Out, computed_in, lowers

_EXACT = lax.Precision.HIGHEST


def product(a: Any, b: Any, dtype: Any) -> Any:
    """Of matrices, in the dtype in which torch adds up."""
    if jnp.issubdtype(dtype, jnp.inexact):
        # Narrow floats are added up in float32.
        wide = computed_in(dtype)
        return jnp.matmul(a, b, precision=_EXACT, preferred_element_type=wide)
    return jnp.matmul(a, b)


@lowers("mm.default", "mv.default", "dot.default", "matmul.default")
@lowers_batches(of_matrices, "bmm.default")
def mm(out: Out, a: Any, b: Any) -> Any:
    """The product."""
    return product(a, b, out.dtype).astype(out.dtype)


@lowers("vdot.default")
def vdot(out: Out, a: Any, b: Any) -> Any:
    """The product, the first conjugated."""
    return product(jnp.conj(a), b, out.dtype).astype(out.dtype)


@lowers("addmm.default", "addmv.default")
@lowers_batches(of_matrices, "baddbmm.default")
def addmm(out: Out, x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """``beta * x + alpha * a @ b``; with beta 0, NaN of ``x`` does not count."""
    found = product(a, b, out.dtype)
    if alpha != 1:
        found = found * jnp.asarray(alpha, found.dtype)
    if beta != 0:
        wide = x.astype(found.dtype)
        found = found + (wide if beta == 1 else wide * jnp.asarray(beta, found.dtype))
    return found.astype(out.dtype)


@lowers("addbmm.default")
def addbmm(out: Out, x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """``beta * x`` and all products of a batch, added up."""
    rows = jnp.swapaxes(a, 0, 1).reshape(a.shape[1], -1)
    return addmm(out, x, rows, b.reshape(-1, b.shape[2]), beta=beta, alpha=alpha)


@lowers("_trilinear.default")
def trilinear(
    out: Out,
    a: Any,
    b: Any,
    c: Any,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Any:
    """The sum of products of three, each of which lacks some axes."""
    rank = a.ndim + len(expand1)
    kept = [[n for n in range(rank) if n not in lacks] for lacks in (expand1, expand2, expand3)]
    axes = [n for n in range(rank) if n not in sumdim]
    terms = [one for pair in zip((a, b, c), kept, strict=True) for one in pair]
    return jnp.einsum(*terms, axes, precision=_EXACT).astype(out.dtype)


@lowers("convolution.default")
def convolution(
    out: Out,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    """Of images with their channels first."""
    batched = x.ndim == weight.ndim
    image = x if batched else x[None]
    found = _convolved(
        image, weight, stride, padding, dilation, transposed, output_padding, groups
    ).astype(out.dtype)
    if bias is not None:
        found = found + bias.reshape((1, -1) + (1,) * (found.ndim - 2))
    return found if batched else found[0]


def _convolved(
    x: Any,
    weight: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Any:
    axes = x.ndim - 2
    stride, padding, dilation = (_each(one, axes) for one in (stride, padding, dilation))
    inner = (1,) * axes
    edges = [(pad, pad) for pad in padding]
    if transposed:
        weight = _turned(weight, groups)
        kernel = weight.shape[2:]
        edges = [
            (far * (size - 1) - pad, far * (size - 1) - pad + extra)
            for far, size, pad, extra in zip(
                dilation, kernel, padding, _each(output_padding, axes), strict=True
            )
        ]
        stride, inner = inner, stride
    letters = "DHW"[3 - axes :] if axes <= 3 else ""
    if not letters:
        raise CannotLowerError(f"a convolution over {axes} axes")
    layout = (f"NC{letters}", f"OI{letters}", f"NC{letters}")
    return lax.conv_general_dilated(
        x,
        weight,
        stride,
        edges,
        lhs_dilation=inner,
        rhs_dilation=dilation,
        dimension_numbers=layout,
        feature_group_count=groups,
        precision=_EXACT,
    )


def _each(value: Sequence[int], axes: int) -> tuple[int, ...]:
    return tuple(value) * axes if len(value) == 1 else tuple(value)


def _turned(weight: Any, groups: int) -> Any:
    """Channels exchanged within each group, and backwards along all axes."""
    first, second, *kernel = weight.shape
    parts = weight.reshape(groups, first // groups, second, *kernel)
    parts = jnp.swapaxes(parts, 1, 2).reshape(groups * second, first // groups, *kernel)
    return jnp.flip(parts, tuple(range(2, parts.ndim)))


@lowers("convolution_backward.default")
def convolution_backward(
    outs: Any,
    cotangent: Any,
    x: Any,
    weight: Any,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> Any:
    """By the transpose of the convolution, which is linear in each."""
    from jax import linear_transpose

    by_x, by_weight, by_bias = output_mask
    rest = (stride, padding, dilation, transposed, output_padding, groups)
    found: list[Any] = [None, None, None]
    if by_x:
        (found[0],) = linear_transpose(lambda x: _convolved(x, weight, *rest), x)(cotangent)
    if by_weight:
        (found[1],) = linear_transpose(lambda weight: _convolved(x, weight, *rest), weight)(
            cotangent
        )
    if by_bias:
        axes = (0, *range(2, cotangent.ndim))
        wide = computed_in(cotangent.dtype)
        found[2] = jnp.sum(cotangent.astype(wide), axis=axes).astype(cotangent.dtype)
    return found
