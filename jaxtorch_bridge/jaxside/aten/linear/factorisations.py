"""Factorisations with orthogonal factors, what is made of them, and the matrix exponential."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy import linalg

from ..registry import CannotLowerError, Out, lowers


@lowers("linalg_qr.default")
def qr(outs: Sequence[Out], x: Any, mode: str = "reduced") -> Any:
    """Of mode ``r`` without the first factor."""
    q, r = lax.linalg.qr(x, full_matrices=mode == "complete")
    return (jnp.zeros(outs[0].shape, x.dtype) if mode == "r" else q), r


@lowers("geqrf.default")
def geqrf(outs: Sequence[Out], x: Any) -> Any:
    """The same as reflectors."""
    reflectors, scales = jnp.linalg.qr(x, mode="raw")
    return jnp.swapaxes(reflectors, -1, -2), scales


@lowers("linalg_householder_product.default")
def householder_product(out: Out, reflectors: Any, scales: Any) -> Any:
    """The first columns of the product of reflectors."""
    return lax.linalg.householder_product(reflectors, scales)


@lowers("ormqr.default")
def ormqr(
    out: Out, reflectors: Any, scales: Any, x: Any, left: bool = True, transpose: bool = False
) -> Any:
    """A product with all columns; what is called the transpose is conjugated."""
    size = reflectors.shape[-2]
    wide = [(0, 0)] * (reflectors.ndim - 1) + [(0, size - reflectors.shape[-1])]
    q = lax.linalg.householder_product(jnp.pad(reflectors, wide), scales)
    if transpose:
        q = jnp.conj(jnp.swapaxes(q, -1, -2))
    return _product(q, x) if left else _product(x, q)


def _product(a: Any, b: Any) -> Any:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


@lowers("_linalg_eigh.default")
def eigh(outs: Sequence[Out], x: Any, UPLO: str = "L", compute_v: bool = True) -> Any:
    """Of one triangle; the imaginary parts of the diagonal do not count."""
    vectors, values = _symmetric(x, UPLO)
    return values, vectors if compute_v else jnp.zeros(outs[1].shape, x.dtype)


def _symmetric(x: Any, half: str = "L") -> tuple[Any, Any]:
    lower = jnp.tril(x, -1) if half.upper() == "L" else _adjoint(jnp.triu(x, 1))
    diagonal = jnp.where(jnp.eye(x.shape[-1], dtype=bool), jnp.real(x), 0).astype(x.dtype)
    whole = lower + _adjoint(lower) + diagonal
    vectors, values = lax.linalg.eigh(whole, symmetrize_input=False)
    return vectors, values


def _adjoint(x: Any) -> Any:
    return jnp.conj(jnp.swapaxes(x, -1, -2))


@lowers("_linalg_svd.default")
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


@lowers("linalg_pinv.atol_rtol_tensor")
def pinv(out: Out, x: Any, *, atol: Any = None, rtol: Any = None, hermitian: bool = False) -> Any:
    """Singular values that are not above a limit count as 0."""
    if not x.size:
        return jnp.zeros(out.shape, out.dtype)
    if hermitian:
        u, values = _symmetric(x)
        sizes, v = jnp.abs(values), _adjoint(u)
    else:
        u, values, v = lax.linalg.svd(x, full_matrices=False)
        sizes = values
    least = _limit(x, sizes, atol, rtol)
    inverse = jnp.where(sizes > least, 1 / values, 0).astype(x.dtype)
    return _product(_adjoint(v) * inverse[..., None, :], _adjoint(u))


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


@lowers("linalg_matrix_exp.default")
def matrix_exp(out: Out, x: Any) -> Any:
    """By Padé's approximation, where torch takes Taylor's."""
    if not x.size:
        return x
    if x.dtype.itemsize < 4:
        # Torch's is NaN for many of them.
        raise CannotLowerError(f"the exponential of {x.dtype}")
    with jax.default_matmul_precision("highest"):
        # As many squarings as the exponents of float64 may ask for.
        return linalg.expm(x, max_squarings=1024).astype(out.dtype)
