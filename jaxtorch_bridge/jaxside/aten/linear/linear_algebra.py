"""Linear systems: triangular ones, and those that Cholesky's and the LU factorisation solve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...._compat.jax.abstract_values import with_equal_variance
from ..batches import lowers_batches, of_matrices
from ..registry import CannotLowerError, Out


def conjugate_transpose(x: Any) -> Any:
    """The transpose, conjugated."""
    return jnp.conj(jnp.swapaxes(x, -1, -2))


def _spread(a: Any, b: Any) -> tuple[Any, Any]:
    """Both with the same batch axes."""
    batch = jnp.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    first, second = (jnp.broadcast_to(one, batch + one.shape[-2:]) for one in (a, b))
    return first, second


def _solved(a: Any, b: Any, **options: Any) -> Any:
    """``inv(a) @ b`` of a triangular ``a``; see `jax.lax.linalg.triangular_solve`."""
    a, b = _spread(a, b)
    return lax.linalg.triangular_solve(a, b, **{"left_side": True, **options})


@lowers_batches(of_matrices, "linalg_solve_triangular.default")
def solve_triangular(
    out: Out, a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    """Only the triangle is read."""
    return _solved(a, b, lower=not upper, left_side=left, unit_diagonal=unitriangular)


@lowers_batches(of_matrices, "triangular_solve.default")
def triangular_solve(
    outs: Sequence[Out],
    b: Any,
    a: Any,
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> Any:
    """The older form, which gives the matrix as well; its transpose is not conjugated."""
    found = _solved(a, b, lower=not upper, transpose_a=transpose, unit_diagonal=unitriangular)
    return found, jnp.broadcast_to(a, outs[1].shape)


@lowers_batches(of_matrices, "linalg_cholesky_ex.default")
def cholesky_ex(
    outs: Sequence[Out], x: Any, *, upper: bool = False, check_errors: bool = False
) -> Any:
    """NaN where there is no factor; torch leaves there what was done so far."""
    _refuse_checks(check_errors)
    if not x.size:
        return x, jnp.zeros(outs[1].shape, jnp.int32)
    half = conjugate_transpose(x) if upper else x
    factor = lax.linalg.cholesky(half, symmetrize_input=False)
    failed = jnp.isnan(jnp.diagonal(factor, axis1=-2, axis2=-1)).any()
    info = lax.cond(failed, _first_bad_minor, _no_bad_minor, half)
    return conjugate_transpose(factor) if upper else factor, info


def _no_bad_minor(x: Any) -> Any:
    # As its matrices are cut by `shard_map`.
    return with_equal_variance([x, jnp.zeros(x.shape[:-2], jnp.int32)])[1]


def _first_bad_minor(x: Any) -> Any:
    """The order of the first leading minor that is not positive, as LAPACK counts; 0 for none.

    Column after column, without blocks: nobody takes this way but in order to fail.
    """
    places = jnp.arange(x.shape[-1])

    def step(at: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        rest, info = state
        column = jnp.where(places > at, jnp.take(rest, at, axis=-1), 0)
        pivot = jnp.real(jnp.take(jnp.diagonal(rest, axis1=-2, axis2=-1), at, axis=-1))
        info = jnp.where((info == 0) & ~(pivot > 0), at + 1, info)
        outer = column[..., :, None] * jnp.conj(column[..., None, :])
        return rest - outer / pivot[..., None, None].astype(x.dtype), info

    start = (x, _no_bad_minor(x))
    return lax.fori_loop(jnp.int32(0), jnp.int32(x.shape[-1]), step, start)[1]


def _refuse_checks(check_errors: bool) -> None:
    if check_errors:
        raise CannotLowerError("a check of its values")


@lowers_batches(of_matrices, "cholesky_solve.default")
def cholesky_solve(out: Out, b: Any, factor: Any, upper: bool = False) -> Any:
    """Of the matrix whose factor is given."""
    options = {"lower": not upper}
    # A lower factor is first, an upper one second in the product.
    first = _solved(factor, b, transpose_a=upper, conjugate_a=upper, **options)
    return _solved(factor, first, transpose_a=not upper, conjugate_a=not upper, **options)


@lowers_batches(of_matrices, "cholesky_inverse.default")
def cholesky_inverse(out: Out, factor: Any, upper: bool = False) -> Any:
    """Of the matrix whose factor is given."""
    return cholesky_solve(out, _identity(factor), factor, upper)


def _identity(like: Any) -> Any:
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def _lu(x: Any, pivot: bool) -> tuple[Any, Any, Any, Any]:
    """Factors, pivots from 1, the permutation from 0, and the first pivot that is 0."""
    if not pivot:
        raise CannotLowerError("a factorisation without pivots")
    factors, pivots, permutation = lax.linalg.lu(x)
    nought = jnp.diagonal(factors, axis1=-2, axis2=-1) == 0
    info = jnp.zeros(x.shape[:-2], jnp.int32)
    if nought.shape[-1]:
        first = jnp.argmax(nought, axis=-1).astype(jnp.int32) + 1
        # A scalar, which is cut like any array.
        info = jnp.where(nought.any(axis=-1), first, 0)
    return factors, pivots + 1, permutation, info


@lowers_batches(of_matrices, "linalg_lu_factor_ex.default")
def lu_factor_ex(
    outs: Sequence[Out], x: Any, *, pivot: bool = True, check_errors: bool = False
) -> Any:
    """Both factors in one matrix."""
    _refuse_checks(check_errors)
    factors, pivots, _, info = _lu(x, pivot)
    return factors, pivots, info


@lowers_batches(of_matrices, "linalg_lu.default")
def lu(outs: Sequence[Out], x: Any, *, pivot: bool = True) -> Any:
    """The permutation as a matrix, and each factor by itself."""
    factors, _, permutation, _ = _lu(x, pivot)
    return _permutation_matrix(permutation, x.dtype), *_halves(factors)


@lowers_batches(of_matrices, "lu_unpack.default")
def lu_unpack(
    outs: Sequence[Out],
    factors: Any,
    pivots: Any,
    unpack_data: bool = True,
    unpack_pivots: bool = True,
) -> Any:
    """The same of what was factorised before."""
    found = [jnp.zeros(one.shape, one.dtype) for one in outs]
    if unpack_pivots:
        permutation = _permutation(pivots, factors.shape[-2])
        found[0] = _permutation_matrix(permutation, outs[0].dtype)
    if unpack_data:
        found[1:] = _halves(factors)
    return found


def _halves(factors: Any) -> tuple[Any, Any]:
    count = min(factors.shape[-2:])
    lower = jnp.tril(factors[..., :, :count], -1)
    rows, columns = lower.shape[-2:]
    lower = lower + jnp.eye(rows, columns, dtype=lower.dtype)
    return lower, jnp.triu(factors[..., :count, :])


def _permutation(pivots: Any, size: int) -> Any:
    return lax.linalg.lu_pivots_to_permutation(pivots - 1, size)


def _permutation_matrix(permutation: Any, dtype: Any) -> Any:
    """Row ``permutation[i]`` of a product with it is row ``i`` of the other factor."""
    return jax.nn.one_hot(permutation, permutation.shape[-1], dtype=dtype, axis=-2)


@lowers_batches(of_matrices, "linalg_lu_solve.default")
def lu_solve(
    out: Out, factors: Any, pivots: Any, b: Any, *, left: bool = True, adjoint: bool = False
) -> Any:
    """Of the matrix whose factors are given, or of its adjoint."""
    return _by_lu(factors, pivots, b, left=left, adjoint=adjoint)


def _by_lu(factors: Any, pivots: Any, b: Any, *, left: bool = True, adjoint: bool = False) -> Any:
    if not left:
        return conjugate_transpose(
            _by_lu(factors, pivots, conjugate_transpose(b), adjoint=not adjoint)
        )
    factors, b = _spread(factors, b)
    order = _permutation(pivots, factors.shape[-1])
    order = jnp.broadcast_to(order, b.shape[:-1])[..., None]
    unit: dict[str, Any] = {"lower": True, "unit_diagonal": True}
    if not adjoint:
        first = _solved(factors, jnp.take_along_axis(b, order, axis=-2), **unit)
        return _solved(factors, first, lower=False)
    back: dict[str, Any] = {"transpose_a": True, "conjugate_a": True}
    first = _solved(factors, b, lower=False, **back)
    second = _solved(factors, first, **unit, **back)
    return jnp.take_along_axis(second, jnp.argsort(order, axis=-2), axis=-2)


@lowers_batches(of_matrices, "linalg_inv_ex.default")
def inv_ex(outs: Sequence[Out], x: Any, *, check_errors: bool = False) -> Any:
    """The inverse, and the first pivot that is 0."""
    _refuse_checks(check_errors)
    factors, pivots, _, info = _lu(x, True)
    return _by_lu(factors, pivots, _identity(x)), info


@lowers_batches(of_matrices, "_linalg_solve_ex.default")
def solve_ex(
    outs: Sequence[Out], a: Any, b: Any, *, left: bool = True, check_errors: bool = False
) -> Any:
    """The solution, and what `linalg_lu_factor_ex` gives."""
    _refuse_checks(check_errors)
    factors, pivots, _, info = _lu(a, True)
    # A vector, or a batch of them.
    is_vector = b.ndim == 1 or (a.ndim - 1 == b.ndim and b.shape == a.shape[:-1])
    found = _by_lu(factors, pivots, b[..., None] if is_vector else b, left=left, adjoint=False)
    return found[..., 0] if is_vector else found, factors, pivots, info
