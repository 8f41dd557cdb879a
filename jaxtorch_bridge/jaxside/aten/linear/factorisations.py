"""Factorisations with orthogonal factors, what is made of them, and the matrix exponential."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..batches import lowers_batches, of_matrices
from ..registry import CannotLowerError, Out
from .linear_algebra import conjugate_transpose
from .products import product


@lowers_batches(of_matrices, "linalg_qr.default")
def qr(outs: Sequence[Out], x: Any, mode: str = "reduced") -> Any:
    """Of mode ``r`` without the first factor."""
    q, r = lax.linalg.qr(x, full_matrices=mode == "complete")
    return (jnp.zeros(outs[0].shape, x.dtype) if mode == "r" else q), r


@lowers_batches(of_matrices, "geqrf.default")
def geqrf(outs: Sequence[Out], x: Any) -> Any:
    """The same as reflectors."""
    reflectors, scales = jnp.linalg.qr(x, mode="raw")
    return jnp.swapaxes(reflectors, -1, -2), scales


@lowers_batches(of_matrices, "linalg_householder_product.default")
def householder_product(out: Out, reflectors: Any, scales: Any) -> Any:
    """The first columns of the product of reflectors."""
    return lax.linalg.householder_product(reflectors, scales)


@lowers_batches(of_matrices, "ormqr.default")
def ormqr(
    out: Out, reflectors: Any, scales: Any, x: Any, left: bool = True, transpose: bool = False
) -> Any:
    """A product with all columns; what is called the transpose is conjugated."""
    size = reflectors.shape[-2]
    wide = [(0, 0)] * (reflectors.ndim - 1) + [(0, size - reflectors.shape[-1])]
    q = lax.linalg.householder_product(jnp.pad(reflectors, wide), scales)
    if transpose:
        q = jnp.conj(jnp.swapaxes(q, -1, -2))
    return product(q, x, x.dtype) if left else product(x, q, x.dtype)


@lowers_batches(of_matrices, "_linalg_eigh.default")
def eigh(outs: Sequence[Out], x: Any, UPLO: str = "L", compute_v: bool = True) -> Any:
    """Of one triangle; the imaginary parts of the diagonal do not count."""
    vectors, values = _symmetric(x, UPLO)
    return values, vectors if compute_v else jnp.zeros(outs[1].shape, x.dtype)


def _symmetric(x: Any, half: str = "L") -> tuple[Any, Any]:
    lower = jnp.tril(x, -1) if half.upper() == "L" else conjugate_transpose(jnp.triu(x, 1))
    diagonal = jnp.where(jnp.eye(x.shape[-1], dtype=bool), jnp.real(x), 0).astype(x.dtype)
    whole = lower + conjugate_transpose(lower) + diagonal
    vectors, values = lax.linalg.eigh(whole, symmetrize_input=False)
    return vectors, values


@lowers_batches(of_matrices, "_linalg_svd.default")
def svd(
    outs: Sequence[Out],
    x: Any,
    full_matrices: bool = False,
    compute_uv: bool = True,
    *,
    driver: str | None = None,
) -> Any:
    """Whatever the driver is."""
    if compute_uv:
        return lax.linalg.svd(x, full_matrices=full_matrices)
    u, _, v = (jnp.zeros(one.shape, one.dtype) for one in outs)
    return u, lax.linalg.svd(x, compute_uv=False), v


@lowers_batches(of_matrices, "linalg_pinv.atol_rtol_tensor")
def pinv(out: Out, x: Any, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Any:
    """Singular values that are not above a limit count as 0."""
    if not x.size:
        return jnp.zeros(out.shape, out.dtype)
    if hermitian:
        u, values = _symmetric(x)
        sizes, v = jnp.abs(values), conjugate_transpose(u)
    else:
        u, values, v = lax.linalg.svd(x, full_matrices=False)
        sizes = values
    least = _limit(x, sizes, atol, rtol)
    inverse = jnp.where(sizes > least, 1 / values, 0).astype(x.dtype)
    return product(conjugate_transpose(v) * inverse[..., None, :], conjugate_transpose(u), x.dtype)


def _limit(x: Any, sizes: Any, atol: Any, rtol: Any) -> Any:
    if rtol is None:
        info: Any = np.finfo(sizes.dtype)
        usual = max(x.shape[-2:]) * info.eps
        # Who gives an absolute limit means that one alone.
        rtol = jnp.asarray(usual) if atol is None else jnp.where(atol > 0, 0.0, usual)
    if atol is None:
        atol = jnp.zeros(())
    greatest = sizes.max(axis=-1, keepdims=True)
    return jnp.maximum(atol[..., None], rtol[..., None] * greatest).astype(sizes.dtype)


@lowers_batches(of_matrices, "linalg_matrix_exp.default")
def matrix_exp(out: Out, x: Any) -> Any:
    """By Taylor's polynomial of degree 18 and squaring, as torch takes it.

    Padé's approximation, which JAX takes, loses a thousand times as much in float32. The norms up
    to which the polynomial is exact to rounding are those of Bader, Blanes and Casas (Mathematics
    7, 2019, 1174).
    """
    if not x.size:
        return x
    if x.dtype.itemsize < 4:
        # Torch's is NaN for many of them.
        raise CannotLowerError(f"the exponential of {x.dtype}")
    real = jnp.float32 if x.dtype in (jnp.float32, jnp.complex64) else jnp.float64
    most = 3.01 if real is jnp.float32 else 1.09
    norms = jnp.abs(x).sum(axis=-2).max(axis=-1)
    halvings = jnp.ceil(jnp.log2(norms / most))
    halvings = jnp.where(jnp.isfinite(norms) & (norms > most), halvings, 0).astype(jnp.int32)
    with jax.default_matmul_precision("highest"):
        found = _taylor(x * jnp.ldexp(jnp.ones((), real), -halvings)[..., None, None])

        def square(state: Any) -> Any:
            number, found = state
            return number + 1, jnp.where(
                (number < halvings)[..., None, None], jnp.matmul(found, found), found
            )

        _, found = lax.while_loop(
            lambda state: state[0] < halvings.max(initial=0), square, (jnp.int32(0), found)
        )
    return found


def _taylor(x: Any) -> Any:
    """The exponential of matrices of small norm: the terms up to the eighteenth power."""
    powers = [jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape), x]
    while len(powers) < 7:
        powers.append(jnp.matmul(powers[-1], x))
    found = powers[0] / math.factorial(18)
    for first in (12, 6, 0):
        terms = [one / math.factorial(first + place) for place, one in enumerate(powers[:6])]
        # The smallest first.
        found = jnp.matmul(found, powers[6]) + functools.reduce(operator.add, reversed(terms))
    return found
