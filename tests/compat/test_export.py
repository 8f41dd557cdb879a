"""Exported programs that call what `torch2jax` returns."""

from __future__ import annotations

import gc

import jax
import jax.numpy as jnp
import pytest
from jax import export

from comparing import assert_equal
from jaxtorch_bridge import ffi_target_names
from jaxtorch_bridge.compat import torch2jax

x = jnp.arange(6.0).reshape(2, 3)


def scaled(x):
    return x * 3


def pair(x):
    return {"a": x * 2, "b": x.sum()}


def declared():
    return torch2jax(scaled, x, output_shapes=jax.ShapeDtypeStruct((2, 3), "float32"))


MADE = {
    "by examples": lambda: torch2jax(scaled, x),
    "declared": declared,
    "containers": lambda: torch2jax(pair, x),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
@pytest.mark.parametrize(
    "program", [lambda f: f, lambda f: jax.grad(total(f))], ids=["call", "grad"]
)
def test_a_function_that_is_wrapped_again_is_planned(make, program):
    f = make()
    # Also of functions that nobody has called.
    allowed = [export.DisabledSafetyCheck.custom_call(name) for name in ffi_target_names()]
    data = export.export(jax.jit(program(f)), disabled_checks=allowed)(x).serialize()
    wanted = program(f)(x)
    del f
    jax.clear_caches()
    gc.collect()
    again = make()
    found = export.deserialize(data).call(x)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert_equal(one, other)
    del again


def total(f):
    return lambda x: sum(leaf.sum() for leaf in jax.tree.leaves(f(x)))
