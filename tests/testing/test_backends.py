"""`check_backend`: a backend compared with the function's own code."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge import ArgumentError, BackendError, from_module, jax_callable
from jaxtorch_bridge.jaxside.aten import families, registry
from jaxtorch_bridge.testing import check_backend

assert families


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def layer(x, w, *, scale=1.0):
    return {"y": torch.tanh(x @ w) * scale, "places": (x @ w).argmax(-1)}


@pytest.mark.parametrize("backend", ["xla", "graph", "compile"])
def test_what_agrees(backend):
    check_backend(jax_callable(layer), normal(3, 4), normal(4, 4, seed=1), backend=backend)
    check_backend(jax_callable(layer, backend=backend), normal(3, 4), normal(4, 4, seed=1))


def test_modules():
    torch.manual_seed(0)
    module = torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    taken = from_module(module, names="flat")
    check_backend(taken, taken.params, normal(2, 3, 8), backend="xla")


WRONG = {
    "value": lambda out, x: jnp.tanh(x) + 0.01,
    # The values are right, and what is made of them is not.
    "gradient": lambda out, x: jnp.tanh(x),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_differs(what, monkeypatch):
    monkeypatch.setitem(registry._LOWERINGS, "tanh.default", WRONG[what])
    if what == "gradient":
        square = registry._LOWERINGS["mul.Tensor"]
        monkeypatch.setitem(
            registry._LOWERINGS, "mul.Tensor", lambda out, x, y: square(out, x, y) * 1.001
        )
    words = rf"<lambda>, {what}.*expected what torch gives, .* at \[\d.*off by .*`backend: eager`"
    with pytest.raises(BackendError, match=words):
        check_backend(jax_callable(lambda x: torch.tanh(x)), normal(3), backend="xla")


def test_a_dtype_that_differs():
    class Narrow:
        __name__ = "narrow"

        def with_backend(self, backend):
            call = jax_callable(lambda x: x * 2)
            return call if backend == "eager" else lambda x: call(x).astype(jnp.float16)

    with pytest.raises(BackendError, match=r"expected float32\[3\] .* got float16\[3\]"):
        check_backend(Narrow(), normal(3), backend="xla")


def test_gradients_that_cancel():
    """What is left of a bias before a norm is rounding, whose size says nothing."""

    def function(x, bias):
        return torch.nn.functional.layer_norm(100 * x + bias.sum(), x.shape[-1:])

    check_backend(jax_callable(function), normal(5, 7), normal(3, seed=1), backend="xla")


def test_without_a_derivative_of_torchs():
    check_backend(jax_callable(lambda x: torch.nextafter(x, 2 * x)), normal(3), backend="graph")


def test_integers_alone():
    check_backend(jax_callable(lambda x: x // 2), jnp.asarray([3, -3]), backend="xla")


class TestRefusals:
    def test_random_numbers(self):
        with (
            pytest.warns(UserWarning, match="nothing declares them"),
            pytest.raises(TypeError, match="draws random numbers"),
        ):
            check_backend(jax_callable(lambda x: torch.rand_like(x)), normal(30), backend="graph")

    def test_a_key(self):
        call = jax_callable(lambda x: torch.rand_like(x), random="key")
        with pytest.raises(TypeError, match="draws random numbers"):
            check_backend(call, normal(3), backend="xla")

    def test_other_functions(self):
        with pytest.raises(TypeError, match=r"expected a jax_callable.*got function"):
            check_backend(lambda x: x, normal(3))

    def test_no_arrays(self):
        with pytest.raises(ValueError, match="at least one array"):
            check_backend(jax_callable(lambda n: torch.ones(n)), 3)


class TestWithBackend:
    def test_a_function(self):
        call = jax_callable(layer, backend="graph")
        x, w = normal(3, 4), normal(4, 4, seed=1)
        assert "backend      xla" in call.with_backend("xla").explain(x, w)
        assert "backend" not in call.with_backend("eager").explain(x, w)
        assert "backend      graph" in call.explain(x, w)

    def test_whatever_the_contract_says(self):
        spec = {
            "schema": "jaxtorch/1",
            "name": "twice",
            "version": "1.0.0",
            "inputs": {"x": "float32[n]"},
            "outputs": {"y": "float32[n]"},
            "execution": {"backend": "graph"},
        }
        call = jax_callable(lambda x: 2 * x, spec=spec).with_backend("xla")
        assert "backend      xla" in call.explain(normal(3))

    def test_a_module(self):
        taken = from_module(torch.nn.BatchNorm1d(3).train())
        other = taken.with_backend("xla")
        assert other.params is taken.params
        x = normal(5, 3)
        for one in (taken, other):
            result, buffers = one(one.params, x, buffers=one.buffers)
            assert_equal(buffers["num_batches_tracked"], jnp.asarray(1, jnp.int32))
            assert result.shape == (5, 3)
        assert "backend      xla" in other.explain(other.params, x, train=False)
        assert "backend  " not in taken.explain(taken.params, x, train=False)

    @pytest.mark.parametrize("one", [jax_callable(layer), from_module(torch.nn.Linear(2, 2))])
    def test_a_word_that_is_none(self, one):
        with pytest.raises(ArgumentError, match="backend as one of eager"):
            one.with_backend("tpu")
