"""Transfers with the peer's parameters."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from comparing import assert_equal
from jaxtorch_bridge import ArgumentError, BridgeError, DtypeError, TransferError
from jaxtorch_bridge.compat import (
    dtype_j2t,
    dtype_t2j,
    j2t,
    t2j,
    torch2jax_auto,
    tree_j2t,
    tree_t2j,
)


@pytest.mark.parametrize("via", ["dlpack", "cpu", "host"])
def test_via_decides_whether_memory_is_shared(via):
    array, tensor = jnp.arange(4.0), torch.arange(64.0)
    there, back = j2t(array, via=via), t2j(tensor, via=via)
    assert_equal(there, array)
    assert_equal(back, tensor)
    shared = via == "dlpack"
    assert (there.data_ptr() == array.unsafe_buffer_pointer()) is shared
    assert (back.unsafe_buffer_pointer() == tensor.data_ptr()) is shared


def test_trees_keep_their_other_leaves():
    tree = {"w": torch.ones(2), "n": [3, "text", None]}
    arrays = tree_t2j(tree, via="cpu")
    assert isinstance(arrays["w"], jax.Array)
    assert arrays["n"] == tree["n"]
    tensors = tree_j2t(arrays)
    assert_equal(tensors["w"], tree["w"])
    with pytest.raises(TransferError, match=r"leaf `\['w'\]`: t2j"):
        tree_t2j({"w": torch.ones(2, device="meta")})


def test_dtypes_of_either_side():
    for name in ("float32", "bfloat16", "int64", "bool", "float8_e5m2"):
        mine, theirs = jnp.dtype(name), getattr(torch, name)
        assert dtype_t2j(theirs) == dtype_t2j(mine) == mine
        assert dtype_j2t(mine) is dtype_j2t(theirs) is theirs
    assert dtype_t2j(jnp.float16) == jnp.float16
    with pytest.raises(DtypeError, match="qint8 cannot go to JAX"):
        dtype_t2j(torch.qint8)
    with pytest.raises(DtypeError, match="int4 cannot go to torch"):
        dtype_j2t(jnp.int4)


@pytest.mark.parametrize("move", [t2j, j2t, tree_t2j, tree_j2t])
def test_another_via_is_an_error(move):
    with pytest.raises(ArgumentError, match="expected via as one of dlpack, cpu, host; got 'air'"):
        move(torch.ones(2), via="air")


def test_the_first_call_gives_the_examples_by_name_too():
    wrapped = torch2jax_auto(lambda a, *, scale: a * scale, depth=1)
    x = jnp.arange(3.0)
    assert_equal(wrapped(x, scale=2.0), 2 * x)
    assert_equal(jax.grad(lambda a: wrapped(a, scale=x).sum())(x), x)
    with pytest.raises(ArgumentError, match="structure"):
        wrapped(x)


def test_a_traced_array_is_an_error_that_the_peers_callers_catch():
    with pytest.raises(RuntimeError, match="got a tracer") as raised:
        jax.jit(j2t)(jnp.ones(2))
    assert isinstance(raised.value, BridgeError)
    with pytest.raises(RuntimeError, match="got a tracer"):
        jax.jit(tree_j2t)({"a": jnp.ones(2)})
