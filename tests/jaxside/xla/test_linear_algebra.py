"""Linear algebra by the backend ``xla``: torch's values, checks and gradients, at edges as well."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_close, assert_equal
from jaxtorch_bridge import PlanningError, jax_callable, t2j

linalg = torch.linalg


def normal(*shape, seed=0, dtype="float32"):
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal(shape) for _ in range(2)]
    return (parts[0] + 1j * parts[1] if "complex" in dtype else parts[0]).astype(dtype)


def matrices(*shape, seed=0, dtype="float32"):
    """Such that no solution is much greater than what it is of."""
    return normal(*shape, seed=seed, dtype=dtype) + 4 * np.eye(*shape[-2:], dtype=dtype)


def definite(x):
    return x @ x.mH + torch.eye(x.shape[-1], dtype=x.dtype)


def values_of(function, *arrays):
    """By JAX, and by torch."""
    found = jax.jit(jax_callable(function, backend="xla"))(*arrays)
    want = function(*[torch.from_numpy(one.copy()) for one in arrays])
    return found, t2j(want) if isinstance(want, torch.Tensor) else tuple(map(t2j, want))


def check(function, *arrays, factor=1.0):
    """Values, and gradients by all arguments."""
    found, want = values_of(function, *arrays)
    assert_close(found, want, factor=factor)
    given = [torch.from_numpy(one.copy()).requires_grad_() for one in arrays]
    size = function(*given).abs().square().sum()
    wanted = [t2j(one) for one in torch.autograd.grad(size, given)]
    call = jax_callable(function, backend="xla")

    def total(*arrays):
        return (jnp.abs(call(*arrays)) ** 2).sum()

    grads = jax.grad(total, argnums=tuple(range(len(arrays))))(*arrays)
    # JAX's gradients by complex numbers are the conjugates of torch's.
    assert_close([jnp.conj(one) for one in grads], wanted, factor=factor)


SQUARE = {
    "cholesky": lambda x: linalg.cholesky_ex(definite(x))[0],
    "upper cholesky": lambda x: linalg.cholesky_ex(definite(x), upper=True)[0],
    "cholesky_inverse": lambda x: torch.cholesky_inverse(linalg.cholesky_ex(definite(x))[0]),
    "inv": lambda x: linalg.inv_ex(x)[0],
    "det": linalg.det,
    "lu": lambda x: linalg.lu(x)[1] + linalg.lu(x)[2],
    "eigvalsh": lambda x: linalg.eigvalsh(x + x.mH),
    "svdvals": linalg.svdvals,
    "qr": lambda x: linalg.qr(x)[1].abs(),
    "pinv": linalg.pinv,
    "pinv of symmetric": lambda x: linalg.pinv(x + x.mH, hermitian=True),
    "matrix_exp": lambda x: torch.matrix_exp(x / 4),
}


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (2, 0, 0), (0, 3, 3)])
@pytest.mark.parametrize("name", SQUARE)
def test_of_one_matrix(name, shape):
    check(SQUARE[name], matrices(*shape))


@pytest.mark.parametrize("name", SQUARE)
def test_other_dtypes(name):
    with jax.enable_x64(True):
        check(SQUARE[name], matrices(2, 3, 3, dtype="complex128"))


@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128"])
@pytest.mark.parametrize("size", [1e-6, 1e-2, 0.3, 1, 3, 10])
def test_exponentials_of_small_and_great_matrices(dtype, size):
    """To torch's own precision, whatever the norm: values and gradients."""
    with jax.enable_x64(True):
        x = (normal(4, 5, 5, dtype=dtype) * size).astype(dtype)
        call = jax_callable(torch.matrix_exp, backend="xla")
        given = torch.from_numpy(np.array(x)).requires_grad_()
        want = torch.matrix_exp(given)
        want.abs().sum().backward()
        slope = jax.grad(lambda x: jnp.abs(call(x)).sum())(x)
        wanted = jnp.asarray(given.grad.resolve_conj().numpy()).conj()
        # Rounding is of the greatest element.
        for found, truth in ((call(x), jnp.asarray(want.detach().numpy())), (slope, wanted)):
            scale = jnp.abs(truth).max()
            assert_close(found / scale, truth / scale, scale=1.0, factor=20)


def options(*names):
    return list(itertools.product([False, True], repeat=len(names)))


KINDS = pytest.mark.parametrize(
    ("a", "b", "dtype"),
    [
        ((2, 1, 3, 3), (4, 3, 3), "float32"),
        ((3, 3), (3, 3), "complex64"),
        ((0, 0), (0, 0), "float32"),
    ],
)


class TestSystems:
    @KINDS
    @pytest.mark.parametrize("left", [False, True])
    def test_solve(self, a, b, left, dtype):
        a, b = matrices(*a, dtype=dtype), normal(*b, seed=1, dtype=dtype)
        found, want = values_of(lambda a, b: linalg.solve_ex(a, b, left=left)[0], a, b)
        assert_close(found, want)

    @pytest.mark.parametrize("lead", [(), (2,)])
    def test_of_vectors(self, lead):
        a, b = matrices(*lead, 3, 3), normal(*lead, 3, seed=1)
        assert_close(*values_of(lambda a, b: linalg.solve_ex(a, b)[0], a, b))
        call = jax_callable(lambda a, b: linalg.solve_ex(a, b)[0], backend="xla")
        tangents = (normal(*lead, 3, 3, seed=2), normal(*lead, 3, seed=3))
        _, pushed = jax.jvp(call, (a, b), tangents)
        da, db = tangents
        x = np.linalg.solve(a, b[..., None])
        assert_close(pushed, np.linalg.solve(a, db[..., None] - da @ x)[..., 0])

    @KINDS
    @pytest.mark.parametrize(("left", "adjoint"), options("left", "adjoint"))
    def test_by_factors(self, a, b, left, adjoint, dtype):
        def function(a, b):
            factors, pivots, _ = linalg.lu_factor_ex(a)
            return linalg.lu_solve(factors, pivots, b, left=left, adjoint=adjoint)

        check(function, matrices(*a, dtype=dtype), normal(*b, seed=1, dtype=dtype))

    @KINDS
    @pytest.mark.parametrize(("upper", "left", "unit"), options("upper", "left", "unit"))
    def test_triangular(self, a, b, dtype, upper, left, unit):
        def function(a, b):
            return linalg.solve_triangular(a, b, upper=upper, left=left, unitriangular=unit)

        arrays = matrices(*a, dtype=dtype), normal(*b, seed=1, dtype=dtype)
        assert_close(*values_of(function, *arrays))
        if left and not unit:
            check(function, *arrays)

    @pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")
    @pytest.mark.parametrize(("upper", "turned", "unit"), options("upper", "turned", "unit"))
    def test_the_older_triangular(self, upper, turned, unit):
        def function(b, a):
            return tuple(torch.triangular_solve(b, a, upper, turned, unit))

        arrays = normal(2, 3, 2, dtype="complex64"), matrices(3, 3, dtype="complex64")
        assert_close(*values_of(function, *arrays))

    @KINDS
    @pytest.mark.parametrize("upper", [False, True])
    def test_by_a_cholesky_factor(self, a, b, upper, dtype):
        arrays = normal(*b, dtype=dtype), matrices(*a, seed=1, dtype=dtype)
        check(lambda b, a: torch.cholesky_solve(b, a, upper=upper), *arrays)


class TestFactors:
    @pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (3, 5), (0, 3), (3, 0), (2, 0, 0)])
    def test_lu(self, shape):
        x = normal(*shape)

        def function(x):
            factors, pivots, info = linalg.lu_factor_ex(x)
            return *linalg.lu(x), factors, pivots, info, *torch.lu_unpack(factors, pivots)

        assert_close(*values_of(function, x))

    @pytest.mark.parametrize("mode", ["reduced", "complete", "r"])
    @pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (3, 5), (0, 3), (3, 0)])
    def test_qr(self, shape, mode):
        x = normal(*shape)
        (q, r), (wanted_q, wanted_r) = values_of(lambda x: linalg.qr(x, mode), x)
        assert (q.shape, r.shape) == (wanted_q.shape, wanted_r.shape)
        if mode != "r":
            assert_close(q @ r, x)
            assert_close(jnp.swapaxes(q, -1, -2) @ q, eyes(q))
        assert_close(jnp.abs(r), jnp.abs(wanted_r))

    @pytest.mark.parametrize("full", [False, True])
    @pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (3, 5), (0, 3), (3, 0)])
    def test_svd(self, shape, full):
        x = normal(*shape, dtype="complex64")
        (u, s, v), wanted = values_of(lambda x: linalg.svd(x, full_matrices=full), x)
        assert [u.shape, s.shape, v.shape] == [one.shape for one in wanted]
        assert_close(s, wanted[1])
        count = s.shape[-1]
        assert_close((u[..., :count] * s[..., None, :]) @ v[..., :count, :], x)

    @pytest.mark.parametrize("half", ["L", "U"])
    def test_eigh_reads_one_triangle(self, half):
        x = normal(2, 4, 4, dtype="complex64")
        (values, vectors), (wanted, _) = values_of(lambda x: linalg.eigh(x, half), x)
        assert_close(values, wanted)
        part = np.tril(x, -1) if half == "L" else np.triu(x, 1).swapaxes(-1, -2).conj()
        whole = part + part.swapaxes(-1, -2).conj() + np.eye(4) * x.real
        assert_close(whole @ vectors, values[..., None, :] * vectors)

    @pytest.mark.parametrize(("left", "turned"), options("left", "turned"))
    @pytest.mark.parametrize("dtype", ["float32", "complex64"])
    def test_reflectors(self, left, turned, dtype):
        def function(x, y):
            reflectors, scales = torch.geqrf(x)
            q = torch.ormqr(reflectors, scales, y, left, turned)
            return torch.linalg.householder_product(reflectors, scales), q

        # Of triangular factors the signs are free, of products with both they are not.
        found, want = values_of(function, normal(4, 3, dtype=dtype), matrices(4, 4, dtype=dtype))
        assert_close(found, want)

    def test_limits_of_a_pseudo_inverse(self):
        x = np.diag(np.array([4.0, 1.0, 1e-3], np.float32))
        for limits in ({"rtol": 0.1}, {"atol": 2.0}, {"atol": 0.5, "rtol": 0.5}, {}):
            assert_close(*values_of(lambda x, limits=limits: linalg.pinv(x, **limits), x))
        assert_equal(*values_of(lambda x: linalg.matrix_rank(x, rtol=0.1), x))


def eyes(like):
    return np.broadcast_to(
        np.eye(like.shape[-1], dtype=np.float32), (*like.shape[:-2], *[like.shape[-1]] * 2)
    )


SINGULAR = np.array([[[1, 2], [2, 4]], [[0, 0], [0, 0]], [[2, 0], [0, 3]]], np.float32)


class TestChecks:
    def test_of_a_nought_as_pivot(self):
        for function in (
            lambda x: linalg.lu_factor_ex(x).info,
            lambda x: linalg.inv_ex(x).info,
            lambda x: linalg.solve_ex(x, x).info,
        ):
            assert_equal(*values_of(function, SINGULAR))

    @pytest.mark.parametrize("upper", [False, True])
    def test_of_what_is_not_definite(self, upper):
        x = np.stack([np.eye(3)] * 4).astype(np.float32)
        x[1, 1, 1] = -1
        x[2, 0, 0] = np.nan
        x[3, 2, 2] = 0
        (factor, info), (wanted, wanted_info) = values_of(
            lambda x: tuple(linalg.cholesky_ex(x, upper=upper)), x
        )
        assert_equal(info, wanted_info)
        assert_close(factor[0], wanted[0])
        assert jnp.isnan(factor[1:]).any(axis=(1, 2)).all()

    def test_determinants_of_singular_ones(self):
        assert_equal(*values_of(linalg.det, SINGULAR))
        assert_equal(*values_of(lambda x: tuple(linalg.slogdet(x)), SINGULAR))

    def test_what_jax_does_not_have(self):
        call = jax_callable(lambda x: linalg.ldl_factor_ex(x)[0], backend="xla", islands=False)
        with pytest.raises(PlanningError, match=r"got aten\.linalg_ldl_factor_ex"):
            call(SINGULAR)
