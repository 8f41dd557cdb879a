"""Wrapping by examples of any kind, for random trees: results and gradients are torch's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from comparing import assert_close
from jaxtorch_bridge.compat import Size, dtype_t2j, torch2jax

leaves = st.tuples(
    st.lists(st.integers(0, 3), max_size=2).map(tuple),
    st.sampled_from([torch.float32, torch.float32, torch.float64, torch.int64, torch.bool]),
    st.sampled_from(["tensor", "array", "shape"]),
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3)
        | st.tuples(inner, st.none())
    ),
    max_leaves=4,
)


def is_leaf(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and isinstance(value[1], torch.dtype)


def mapped(function, tree):
    return jax.tree.map(function, tree, is_leaf=is_leaf)


def value_of(leaf, seed=0):
    shape, dtype, _ = leaf
    values = np.random.default_rng(seed).standard_normal(shape) * 3
    return torch.as_tensor(values).to(dtype)


def example_of(leaf):
    tensor = value_of(leaf)
    if leaf[2] == "tensor":
        return tensor
    if leaf[2] == "array":
        return held(tensor)
    return jax.ShapeDtypeStruct(tuple(tensor.shape), dtype_t2j(tensor.dtype))


def function(tree, other):
    """Something of each leaf, in another order and structure."""
    found = [leaf * 2 if leaf.dtype != torch.bool else ~leaf for leaf in jax.tree.leaves(tree)]
    total = sum(leaf.float().sin().sum() for leaf in found)
    return {"total": total, "each": list(reversed(found)), "other": (other, other.sum())}


def held(tensor):
    """What JAX holds of a tensor while x64 is off."""
    return jnp.asarray(np.asarray(tensor.detach()))


@given(tree=trees, declared=st.sampled_from(["nothing", "a list", "sizes"]))
@settings(max_examples=8)
def test_results_and_gradients_are_torchs(tree, declared):
    tensors = mapped(lambda leaf: value_of(leaf, seed=1), tree)
    scale = torch.arange(1.0, 3.0)
    expected = function(tensors, scale)
    flat = jax.tree.leaves(expected)
    options = {
        "nothing": {},
        "a list": {"output_shapes": flat},
        "sizes": {
            "output_shapes": [
                Size(leaf.shape) if leaf.dtype == torch.float32 else leaf for leaf in flat
            ]
        },
    }[declared]
    if declared == "sizes" and any(leaf.dtype == torch.float64 for leaf in flat):
        options = {"output_shapes": flat}  # sizes take the dtype of the one kind of floats
    wrapped = torch2jax(function, mapped(example_of, tree), scale, **options)
    arrays, other = mapped(held, tensors), held(scale)
    for results in (wrapped(arrays, other), jax.jit(wrapped)(arrays, other)):
        if options:
            assert type(results) is list
        else:
            assert jax.tree.structure(results) == jax.tree.structure(expected)
        for mine, theirs in zip(jax.tree.leaves(results), flat, strict=True):
            want = held(theirs)
            assert (mine.shape, mine.dtype) == (want.shape, want.dtype)
            assert_close(mine, want)

    def loss(arrays, other):
        floats = [
            leaf
            for leaf in jax.tree.leaves(wrapped(arrays, other))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        return sum(leaf.sum() for leaf in floats)

    moving = [leaf for leaf in jax.tree.leaves(tensors) if leaf.is_floating_point()]
    for leaf in (*moving, scale):
        leaf.requires_grad_()
    outputs = [leaf for leaf in jax.tree.leaves(function(tensors, scale)) if leaf.requires_grad]
    sum(leaf.sum() for leaf in outputs).backward()
    found = jax.grad(loss, (0, 1), allow_int=True)(arrays, other)
    floating = [leaf for leaf in jax.tree.leaves(found) if leaf.dtype != jax.dtypes.float0]
    for mine, leaf in zip(floating, (*moving, scale), strict=True):
        assert mine.dtype == jnp.float32
        assert_close(mine, held(leaf.grad))
