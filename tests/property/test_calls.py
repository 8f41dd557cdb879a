"""Random trees of arrays and static values cross the bridge and come back as they were."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from hypothesis import given, settings
from hypothesis import strategies as st

from comparing import assert_equal
from jaxtorch_bridge import jax_callable

arrays = st.sampled_from([(), (3,), (0, 2), (2, 3)]).map(lambda shape: jnp.full(shape, 2.0))
static = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from(["a", "b"]), st.none())


def trees(leaves):
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
        ),
        max_leaves=6,
    )


@settings(max_examples=40)
@given(tree=trees(arrays), options=trees(static), jit=st.booleans())
def test_trees(tree, options, jit):
    seen = []

    def function(tree, options):
        seen.append(options)
        return jax.tree.map(lambda tensor: tensor * 3, tree)

    wrapped = jax_callable(function)
    call = jax.jit(lambda tree: wrapped(tree, options=options)) if jit else None
    result = call(tree) if call else wrapped(tree, options=options)
    assert jax.tree.structure(result) == jax.tree.structure(tree)
    for mine, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(tree), strict=True):
        assert_equal(mine, theirs * 3)
    assert all(value == options for value in seen)
