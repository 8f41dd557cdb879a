"""Is a call cut into shards the same as a call on whole arrays?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ..calling.jax_callable import JaxCallable
from ..errors import ShardingError
from .examples import Examples, gaps


def check_sharding(
    function: JaxCallable[..., Any], mesh: jax.sharding.Mesh, *examples: Any
) -> None:
    """Compare calls cut along the contract's ``sharding`` with the call on whole arrays.

    The contract claims that what one shard computes depends on that shard alone. Tried with
    all of its dimensions cut, and with each of them alone, as far as their mesh axes are there.

    Args:
        function: With a contract that has ``sharding``.
        mesh: With these axes. Their types do not matter: the check makes them explicit.
        examples: Positional arguments of one call, whole.

    Raises:
        ShardingError: A result differs, or the call cannot be cut so.
        ValueError: The contract has no ``sharding``, or the mesh none of its axes.
    """
    name = function.spec.label if function.spec else repr(function)
    if function.spec is None or not function.spec.sharding:
        raise ValueError(f"check_sharding: expected a contract with `sharding`; {name} has none")
    sharding = {
        dimension: axis
        for dimension, axis in function.spec.sharding.items()
        if axis in mesh.axis_names
    }
    if not sharding:
        raise ValueError(
            f"check_sharding: expected a mesh with one of the axes "
            f"{sorted(set(function.spec.sharding.values()))}; got {mesh.axis_names}"
        )
    explicit = jax.sharding.Mesh(
        mesh.devices,
        mesh.axis_names,
        axis_types=(jax.sharding.AxisType.Explicit,) * mesh.devices.ndim,
    )
    given = Examples(examples)
    whole = given.with_arrays(given.arrays)
    # Outside of the mesh, so that nothing of it is cut.
    wanted = jax.tree.map(np.asarray, function(*whole))
    layouts = function.dimension_names(*whole)
    for cut in _cuts(sharding):
        with jax.sharding.set_mesh(explicit):
            specs = [jax.P(*(cut.get(n) if n else None for n in names)) for names in layouts]
            pairs = list(zip(given.arrays, specs, strict=True))
            # Sizes that do not divide are named here, and not as device_put's.
            function.plan(*given.with_arrays([_aval(explicit, *pair) for pair in pairs]))
            placed = [jax.device_put(array, spec) for array, spec in pairs]
            found = jax.jit(lambda *arrays: function(*given.with_arrays(arrays)))(*placed)
        _compare(name, cut, found, wanted)


def _aval(mesh: jax.sharding.Mesh, array: Any, spec: Any) -> jax.ShapeDtypeStruct:
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)


def _cuts(sharding: dict[str, str]) -> Iterator[dict[str, str]]:
    """All dimensions together, as far as they have mesh axes of their own, then each alone."""
    # Two dimensions may have one mesh axis; reversed, so that the first of them has it here.
    together = {axis: dimension for dimension, axis in reversed(sharding.items())}
    yield {dimension: axis for axis, dimension in together.items()}
    if len(sharding) > 1:
        yield from ({dimension: axis} for dimension, axis in sharding.items())


def _compare(name: str, cut: dict[str, str], found: Any, wanted: Any) -> None:
    words = ", ".join(f"`{dimension}` along {axis}" for dimension, axis in cut.items())
    for (path, expected), result in zip(
        jax.tree.leaves_with_path(wanted), jax.tree.leaves(found), strict=True
    ):
        where = f"{name}, output{jax.tree_util.keystr(path)}, cut {words}"
        if result.shape != expected.shape:
            raise ShardingError(
                f"{where}: expected {list(expected.shape)}, got {list(result.shape)}."
            )
        difference = gaps(result, expected).max(initial=0.0)
        if difference:
            raise ShardingError(
                f"{where}: differs from the call on whole arrays by up to {difference:.3g}. "
                "Shards are not independent: take the dimension out of `sharding`."
            )
