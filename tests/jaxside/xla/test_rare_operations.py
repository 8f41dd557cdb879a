"""Rare operations by the backend ``xla``, where JAX's own functions give something else."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from comparing import assert_close, assert_equal
from jaxtorch_bridge import jax_callable, t2j

INF, NAN = float("inf"), float("nan")


def both(function, *arrays):
    """What JAX's program gives, and torch."""
    found = jax.jit(jax_callable(function, backend="xla"))(*arrays)
    want = function(*[torch.from_numpy(one.copy()) for one in arrays])
    return found, t2j(want) if isinstance(want, torch.Tensor) else tuple(map(t2j, want))


def floats(*values):
    return np.array(values, np.float32)


POLES = floats(0.0, -0.0, -1.0, -2.0, -7.0, 1.0, INF, -INF, NAN)
FAR = floats(-30.3, -12.4, -2.2, -0.3, 0.3, 2.5, 9.4, 11.0, 30.0)
OF_ONE = {
    "digamma": torch.digamma,
    "trigamma": lambda x: torch.polygamma(1, x),
    "polygamma": lambda x: torch.polygamma(3, x),
    "even polygamma": lambda x: torch.polygamma(2, x),
    "zeta": lambda x: torch.special.zeta(3.0, x),
    "erfcx": torch.special.erfcx,
    "log_ndtr": torch.special.log_ndtr,
    "ndtri": torch.special.ndtri,
    "i0": torch.i0,
    "i1e": torch.special.i1e,
    "j0": torch.special.spherical_bessel_j0,
}


@pytest.mark.parametrize("name", OF_ONE)
def test_functions_of_one_element(name):
    assert_close(*both(OF_ONE[name], POLES))
    # One by one: some of them are very great.
    found, want = both(OF_ONE[name], FAR)
    for place, one in enumerate(want):
        # Near poles digits are lost, and not always the same ones.
        assert_close(found[place], one, factor=20, label=str(FAR[place]))


def test_parts_of_gamma():
    values = floats(0.0, 0.5, 1.0, 3.0, 1e5, INF, -1.0)
    a, x = (one.ravel() for one in np.meshgrid(values, values))
    assert_close(*both(lambda a, x: (torch.igamma(a, x), torch.igammac(a, x)), a, x))


@pytest.mark.parametrize("kind", ["t", "u", "v", "w"])
@pytest.mark.parametrize("shifted", ["", "shifted_"])
def test_chebyshev(kind, shifted):
    function = getattr(torch.special, f"{shifted}chebyshev_polynomial_{kind}")
    x, n = floats(-2.0, -1.0, -0.3, 0.0, 0.6, 1.0, 1.5, NAN), floats(-1, 0, 1, 2, 7, 12, INF)
    found, want = both(lambda x, n: function(x[:, None], n), x, n)
    for degree in range(n.size):
        assert_close(found[:, degree], want[:, degree])


@pytest.mark.parametrize("name", ["hermite_polynomial_h", "hermite_polynomial_he"])
def test_degrees_that_are_too_great(name):
    function = getattr(torch.special, name)
    n = floats(-1, 0, 1, 4, 20, 129, 1e9, NAN)
    assert_equal(*both(lambda n: function(torch.full_like(n, 0.0), n), n))


class TestOrder:
    X = floats(1, 3, 3, NAN, 2, NAN, 5)

    @pytest.mark.parametrize("name", ["cummax", "cummin"])
    def test_running_extremes(self, name):
        def function(x):
            return tuple(getattr(x, name)(-1))

        for x in (self.X, np.array([[1, 1, 0, 1]]), np.zeros((2, 0)), np.float32(3)):
            assert_equal(*both(function, np.asarray(x)))

    @pytest.mark.parametrize("name", ["median", "nanmedian"])
    def test_medians(self, name):
        def function(x):
            return *getattr(x, name)(-1), getattr(x, name)()

        for x in (self.X, self.X[[0, 4, 1, 6]], np.full((2, 3), NAN, np.float32), np.float32(3)):
            assert_equal(*both(function, np.asarray(x)))
        assert_equal(*both(lambda x: getattr(x, name)(), floats()))

    def test_modes(self):
        for x in (np.array([[2, 1, 2, 1, 3], [5, 4, 4, 4, 5]], np.int32), np.zeros((0, 3))):
            assert_equal(*both(lambda x: tuple(x.mode(1)), x.astype(np.int32)))


@pytest.mark.filterwarnings("ignore:index_reduce:UserWarning")
class TestScattering:
    @pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
    @pytest.mark.parametrize("include_self", [False, True])
    @pytest.mark.parametrize("dtype", ["float32", "int32"])
    def test_many_to_one_place(self, reduce, include_self, dtype):
        def function(x, index, source):
            rest = {"include_self": include_self}
            found = x.scatter_reduce(0, index.long()[:, None], source, reduce, **rest)
            if reduce == "sum":
                return found
            return found + x.index_reduce(0, index.long(), source[:4, :1], reduce, **rest)

        x = np.arange(-3, 3).reshape(6, 1).astype(dtype)
        source = np.array([[3], [-7], [2], [5]]).astype(dtype)
        index = np.array([0, 0, 2, 0], np.int32)
        assert_close(*both(function, x, index, source))

    def test_nan_wins(self):
        def function(x, source):
            index = torch.tensor([0, 0, 1])
            return x.scatter_reduce(0, index, source, "amax"), x.scatter_reduce(
                0, index, source, "amin", include_self=False
            )

        assert_equal(*both(function, floats(NAN, 2, 3), floats(1, NAN, 4)))

    def test_masked(self):
        def function(x, mask, source):
            return x.masked_scatter(mask, source)

        x, mask = np.zeros((2, 3), np.float32), np.array([True, False, True])
        assert_equal(*both(function, x, mask, np.arange(6, dtype=np.float32)))


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, INF])
def test_gradients_of_distances_of_equal_points(p):
    def function(x):
        return torch.cdist(x, x[:2]).sum() + torch.cdist(x, x[:2], p=p).sum() + F.pdist(x, p).sum()

    x = floats(1, 2, 1, 2, 0, -1, 1, 0).reshape(4, 2)
    found = jax.grad(jax_callable(function, backend="xla"))(x)
    given = torch.from_numpy(x).requires_grad_()
    assert_close(found, t2j(torch.autograd.grad(function(given), given)[0]))


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize(
    ("padding", "align"), [("zeros", False), ("border", True), ("reflection", True)]
)
def test_reading_at_places(mode, padding, align):
    def function(x, grid):
        return F.grid_sample(x, grid, mode, padding, align)

    axes = 2 if mode == "bicubic" else 3
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 4, 5, 6)[: 2 + axes]).astype(np.float32)
    grid = rng.uniform(-2.5, 2.5, [*[2, 3, 2, 4][: 1 + axes], axes]).astype(np.float32)
    grid.ravel()[:4] = [-1, 1, 0, 0.5]
    assert_close(*both(function, x, grid))
    call = jax_callable(function, backend="xla")
    found = jax.grad(lambda *a: (call(*a) ** 2).sum(), argnums=(0, 1))(x, grid)
    given = [torch.from_numpy(one.copy()).requires_grad_() for one in (x, grid)]
    wanted = torch.autograd.grad((function(*given) ** 2).sum(), given)
    # Between two elements a place is a small difference of greater numbers.
    assert_close(found, tuple(map(t2j, wanted)), factor=4)


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("size", [(7, 3), (2, 9)])
def test_gradients_of_resized_images(mode, size):
    def function(x):
        aligned = {"align_corners": True} if mode.startswith("bi") else {}
        found = F.interpolate(x, size, mode=mode)
        found = found**2 + F.interpolate(x, size, mode=mode, **aligned)
        if mode.startswith("bi"):
            found = found * F.interpolate(x, size, mode=mode, antialias=True)
        return found.sum()

    x = np.random.default_rng(0).standard_normal((2, 1, 5, 4)).astype(np.float32)
    found = jax.grad(jax_callable(function, backend="xla"))(x)
    given = torch.from_numpy(x).requires_grad_()
    assert_close(found, t2j(torch.autograd.grad(function(given), given)[0]))


def test_bags():
    indices, offsets = np.array([4, 1, 1, 0, 2], np.int32), np.array([0, 2, 2], np.int32)
    weight = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for mode in ("sum", "mean", "max"):

        def function(weight, indices, offsets, mode=mode):
            return F.embedding_bag(indices.long(), weight, offsets.long(), mode=mode, padding_idx=0)

        assert_close(*both(function, weight, indices, offsets))
        call = jax_callable(function, backend="xla")
        found = jax.grad(lambda *a: (call(*a) ** 2).sum())(weight, indices, offsets)  # noqa: B023
        given = [torch.from_numpy(one.copy()) for one in (weight, indices, offsets)]
        given[0].requires_grad_()
        wanted = torch.autograd.grad((function(*given) ** 2).sum(), given[0])[0]
        assert_close(found, t2j(wanted))


def test_histograms():
    x = floats(1, 2, 2, 3, 0.5, NAN, 5)
    assert_close(*both(lambda x, bins: torch.histogram(x, bins).hist, x, floats(1, 2, 3)))
    assert_close(*both(lambda x: tuple(torch.histogram(x, 4, range=(0, 3), density=True)), x))
