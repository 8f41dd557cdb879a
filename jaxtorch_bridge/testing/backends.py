"""Does a backend give what the function's own code gives?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..choices import Backend
from ..errors import BackendError, DifferentiationError
from .examples import Examples, gaps

# From the arrays to results.
_Run = Callable[..., Any]

_DRAWS = (
    "check_backend: expected a function that gives the same twice; {name} draws random numbers, "
    "which backends draw in their own ways"
)


def check_backend(function: Any, *examples: Any, backend: Backend | None = None) -> None:
    """Compare a backend with the function's own code: values, gradients and tangents.

    Each under ``jit``, with cotangents and tangents that are made up. Tolerances follow the dtypes
    (float32: 1e-4 of an array's greatest value); where gradients cancel, rounding is relative to
    the greatest of all gradients.

    Args:
        function: A `jax_callable` or what `from_module` gives.
        examples: Arguments of one call (of a module: its parameters first): arrays, or pytrees of
            arrays and static leaves.
        backend: What to compare, in place of the function's own.

    Raises:
        BackendError: The two differ; says in what, by how much, and where.
        DifferentiationError: The backend has no derivative where the function's own code has one.
        ValueError: There is no array among the examples.
        TypeError: ``function`` is none of these, or draws random numbers.
    """
    if not hasattr(function, "with_backend"):
        raise TypeError(
            "check_backend: expected a jax_callable or what from_module gives, got "
            f"{type(function).__name__}"
        )
    if getattr(function, "_key_use", "no") == "must":
        raise TypeError(_DRAWS.format(name=getattr(function, "__name__", "it")))
    given = Examples(examples)
    if not given.arrays:
        raise ValueError("check_backend: expected at least one array among the examples")
    asked = function if backend is None else function.with_backend(backend)
    own = function.with_backend("eager")
    name = getattr(function, "__name__", type(function).__name__)
    moving = [
        place
        for place, array in enumerate(given.arrays)
        if jnp.issubdtype(array.dtype, jnp.inexact)
    ]

    def of(called: Any) -> _Run:
        def run(*arrays: Any) -> Any:
            whole = list(given.arrays)
            for place, array in zip(moving, arrays, strict=True):
                whole[place] = array
            return called(*given.with_arrays(whole))

        return run

    arrays = [given.arrays[place] for place in moving]
    found, wanted = (jax.jit(of(one))(*arrays) for one in (asked, own))
    if _differ(wanted, jax.jit(of(own))(*arrays)):
        raise TypeError(_DRAWS.format(name=name))
    _compare(name, "value", found, wanted)
    for what, derivative in (("gradient", _gradient), ("tangent", _tangent)):
        if not moving:
            continue
        try:
            wanted = jax.jit(derivative(of(own)))(*arrays)
        except DifferentiationError:
            continue  # torch has none
        found = jax.jit(derivative(of(asked)))(*arrays)
        _compare(name, what, found, wanted, together=True)


def _gradient(run: _Run) -> _Run:
    def gradient(*arrays: Any) -> Any:
        results, pull = jax.vjp(lambda *moved: _inexact(run(*moved)), *arrays)
        return pull([_made_up(one, seed) for seed, one in enumerate(results)])

    return gradient


def _tangent(run: _Run) -> _Run:
    def tangent(*arrays: Any) -> Any:
        moves = tuple(_made_up(one, seed) for seed, one in enumerate(arrays))
        return jax.jvp(lambda *moved: _inexact(run(*moved)), arrays, moves)[1]

    return tangent


def _inexact(results: Any) -> list[Any]:
    return [one for one in jax.tree.leaves(results) if jnp.issubdtype(one.dtype, jnp.inexact)]


def _made_up(array: Any, seed: int) -> Any:
    # No numbers that an example was made of, which could make all cancel.
    source = np.random.default_rng((seed, 0x626B))
    drawn = source.standard_normal(array.shape)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        drawn = drawn + 1j * source.standard_normal(array.shape)
    return jnp.asarray(drawn, array.dtype)


def _differ(found: Any, wanted: Any) -> bool:
    return any(float(gaps(one, other).max(initial=0.0)) for _, one, other in _pairs(found, wanted))


def _pairs(found: Any, wanted: Any) -> Iterator[tuple[str, Any, Any]]:
    others = jax.tree.leaves(found)
    for (path, one), other in zip(jax.tree.leaves_with_path(wanted), others, strict=True):
        yield jax.tree_util.keystr(path), other, one


def _compare(name: str, what: str, found: Any, wanted: Any, *, together: bool = False) -> None:
    scale = max(map(_greatest, jax.tree.leaves(wanted)), default=0.0) if together else 0.0
    for path, one, other in _pairs(found, wanted):
        where = f"{name}, {what}{path}"
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise BackendError(
                f"{where}: expected {other.dtype}{list(other.shape)} as torch gives it, got "
                f"{one.dtype}{list(one.shape)}. Say `backend: eager`."
            )
        apart = gaps(one, other, scale=scale)
        worst = float(apart.max(initial=0.0))
        if worst:
            place = np.unravel_index(int(apart.argmax()), apart.shape)
            values = (np.asarray(array)[place] for array in (other, one))
            expected, got = values
            raise BackendError(
                f"{where}: expected what torch gives, {expected} at {list(map(int, place))}; got "
                f"{got}, off by {worst:.3g}. Say `backend: eager`, and report it."
            )


def _greatest(array: Any) -> float:
    wide = np.complex128 if _is_complex(array) else np.float64
    sizes: Any = np.abs(np.asarray(array, wide))
    return float(sizes[np.isfinite(sizes)].max(initial=0.0))


def _is_complex(array: Any) -> bool:
    return bool(jnp.issubdtype(array.dtype, jnp.complexfloating))
