"""Every dtype that both sides have, in every rank, against torch itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge import DtypeError, jax_callable
from jaxtorch_bridge.dtypes import DTYPES, WITHOUT_PARTNER
from jaxtorch_bridge.transfer import j2t

SHAPES = [(), (0,), (5,), (2, 3), (2, 0, 3), (1, 2, 1, 3)]


def make(dtype: str, shape: tuple[int, ...]) -> jax.Array:
    values = np.random.default_rng(0).integers(0, 5, shape)
    if DTYPES[dtype].kind == "complex":
        values = values + 1j * (values + 1)
    return jnp.asarray(values).astype(dtype)


def as_bytes(array) -> bytes:
    return np.ascontiguousarray(np.asarray(array)).tobytes()


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_cross_unchanged(dtype, jit):
    """In and out without a bit changed: contiguous, permuted, the input itself, its bytes."""

    def function(x):
        if x.ndim == 0:
            return x.clone(), x, x.expand(3)
        return x.clone(), x, x.movedim(0, -1), x.clone().view(torch.uint8)

    with jax.enable_x64(True):
        call = jax.jit(jax_callable(function)) if jit else jax_callable(function)
        for shape in SHAPES:
            x = make(dtype, shape)
            for result, wanted in zip(call(x), function(j2t(x, copy=True)), strict=True):
                assert str(wanted.dtype) == f"torch.{result.dtype}"
                assert result.shape == tuple(wanted.shape)
                assert as_bytes(result) == as_bytes(_torch_bytes(wanted))


def _torch_bytes(tensor):
    flat = tensor.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy() if flat.numel() else np.zeros(0, np.uint8)


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", [d for d in DTYPES if not d.startswith("float8")])
def test_arithmetic_agrees_with_torch(dtype, jit):
    def function(a, b):
        return (a + b, a == b) if dtype != "bool" else (a | b, a == b)

    with jax.enable_x64(True):
        call = jax.jit(jax_callable(function)) if jit else jax_callable(function)
        for shape in SHAPES:
            a = make(dtype, shape)
            try:
                wanted = function(j2t(a, copy=True), j2t(a, copy=True))
            except RuntimeError:  # torch has no such kernel for uint16 and up
                assert dtype in ("uint16", "uint32", "uint64")
                continue
            for result, tensor in zip(call(a, a), wanted, strict=True):
                assert as_bytes(result) == as_bytes(_torch_bytes(tensor))


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
def test_results_of_64_bits_follow_jax_while_x64_is_off(jit):
    function = jax_callable(
        lambda x: (
            x.argmax(),
            x.double() * 1e300,
            x.to(torch.complex128),
            x.long().to(torch.uint64),
        )
    )
    call = jax.jit(function) if jit else function
    x = jnp.asarray([1.0, 3.0, 2.0])
    with jax.enable_x64(False):
        results = call(x)
    assert [str(r.dtype) for r in results] == ["int32", "float32", "complex64", "uint32"]
    assert int(results[0]) == 1
    assert_equal(results[3], [1, 3, 2])
    with jax.enable_x64(True):
        assert [str(r.dtype) for r in call(x)] == ["int64", "float64", "complex128", "uint64"]


def test_x64_set_before_jax_starts(run_python):
    script = """
import jax, jax.numpy as jnp, torch
from jaxtorch_bridge import jax_callable
f = jax_callable(lambda x: (x.argmax(), x * 2))
r = f(jnp.arange(3.0))
print([str(v.dtype) for v in r], f.plan(jnp.arange(3.0)).outputs[0].dtype)
"""
    assert run_python(script, env={"JAX_ENABLE_X64": "1"}).strip() == "['int64', 'float64'] int64"
    assert run_python(script).strip() == "['int32', 'float32'] int32"


@pytest.mark.parametrize("dtype", ["int4", "uint4", "float8_e4m3", "float8_e4m3b11fnuz"])
def test_dtypes_that_torch_lacks_are_refused_by_argument(dtype):
    x = jnp.zeros(2, getattr(jnp, dtype))
    with pytest.raises(
        DtypeError, match=f"argument `labels`: dtype {dtype} cannot be handed to torch"
    ):
        jax_callable(lambda x, labels: x)(jnp.ones(2), labels=x)
    assert dtype in WITHOUT_PARTNER


def test_typed_keys_are_refused():
    with pytest.raises(DtypeError, match=r"argument `key`: .*key_data"):
        jax_callable(lambda key: key)(jax.random.key(0))


def test_dtypes_that_jax_lacks_are_refused_by_output():
    with pytest.raises(DtypeError, match=r"output `output`: torch returned complex32.*complex64"):
        jax_callable(lambda x: torch.complex(x.half(), x.half()))(jnp.ones(2))
