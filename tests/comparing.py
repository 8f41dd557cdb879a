"""How every test compares results: `assert_close` up to rounding, `assert_equal` bit by bit.

Processors add in other orders, fuse other multiplications with additions and round other functions
in another way. So how near is near enough depends on the precision of the numbers and on the size
of an array's greatest value (small ones may be what is left of greater ones), and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch


def assert_close(
    found: Any,
    expected: Any,
    *,
    factor: float = 1.0,
    scale: float = 0.0,
    computed_in: str | None = None,
    label: str = "",
) -> None:
    """Compare arrays, or trees of them, up to rounding.

    Structures and shapes have to be the same, and dtypes as well where both sides are of JAX or
    torch. NaNs and infinities stand in the same places. Three quarters of a dtype's digits agree:
    values differ by at most 6e-6 of an array's greatest in float32, 2e-12 in float64, 5e-3 in
    float16 and 3e-2 in bfloat16. Integers and booleans are equal.

    Args:
        found: Arrays of JAX, NumPy or torch, numbers, or a tree of them.
        expected: The same; where it is a number, all of an array, and beside one array a list.
        factor: How much more they may differ. Say why where it is not 1.
        scale: The least size that rounding errors are relative to, for what is left of greater
            numbers that cancel.
        computed_in: A dtype of less precision than those of both sides, that was used on the way.
        label: What is compared, for the message.

    Raises:
        AssertionError: Says which leaf, the greatest difference and its place, what is allowed.
    """
    for path, one, other in _pairs(found, expected, label):
        allowed = factor * _share(one, other, computed_in)
        allowed *= max(_greatest(other.values), scale) if allowed else 0.0
        _compare(path, one, other, allowed)


def assert_equal(found: Any, expected: Any, *, label: str = "") -> None:
    """Compare as `assert_close`, but each value exactly; a NaN is equal to a NaN."""
    for path, one, other in _pairs(found, expected, label):
        _compare(path, one, other, 0.0)


def is_close(found: Any, expected: Any, **options: Any) -> bool:
    """Whether `assert_close` would pass: for threads, and for what has to differ."""
    try:
        assert_close(found, expected, **options)
    except AssertionError:
        return False
    return True


class _Leaf(NamedTuple):
    values: np.ndarray
    """Floats in float64, complex numbers in complex128; others as they are."""
    dtype: str | None
    """None if it is not an array."""
    of_framework: bool
    """Of JAX or torch: its dtype is meant."""


def _leaf(value: Any) -> _Leaf:
    of_framework = isinstance(value, jax.Array | torch.Tensor)
    if isinstance(value, torch.Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        if value.is_complex() or value.is_floating_point():
            value = value.to(torch.complex128 if value.is_complex() else torch.float64)
        return _Leaf(value.numpy(force=True), dtype, of_framework)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    values = np.asarray(value)
    if values.dtype == jax.dtypes.float0:
        return _Leaf(np.zeros(values.shape, bool), "float0", True)
    dtype = str(values.dtype) if _is_array(value) else None
    if jnp.issubdtype(values.dtype, jnp.inexact):
        values = values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)
    return _Leaf(values, dtype, of_framework)


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | torch.Tensor)


def _pairs(found: Any, expected: Any, label: str) -> Iterator[tuple[str, _Leaf, _Leaf]]:
    """The leaves of both sides with their names; fails where these are not alike."""
    if _is_array(found) != _is_array(expected):
        # A list of numbers or of arrays beside one array.
        found, expected = (
            np.asarray(side) if isinstance(side, list | tuple) else side
            for side in (found, expected)
        )
    ours, structure = jax.tree_util.tree_flatten_with_path(found)
    theirs, wanted = jax.tree.flatten(expected)
    assert structure == wanted, f"{label or 'trees'}: found {structure}, expected {wanted}"
    for (path, mine), other in zip(ours, theirs, strict=True):
        name = ", ".join(filter(None, [label, jax.tree_util.keystr(path)])) or "arrays"
        one, other = _leaf(mine), _leaf(other)
        if other.dtype is None and other.values.ndim == 0:
            other = other._replace(values=np.broadcast_to(other.values, one.values.shape))
        assert one.values.shape == other.values.shape, (
            f"{name}: found shape {one.values.shape}, expected {other.values.shape}"
        )
        if one.of_framework and other.of_framework:
            assert one.dtype == other.dtype, f"{name}: found {one.dtype}, expected {other.dtype}"
        yield name, one, other


def _share(one: _Leaf, other: _Leaf, computed_in: str | None) -> float:
    """How much of the greatest value rounding may change; 0 for integers and booleans."""
    inexact = [leaf.dtype for leaf in (one, other) if leaf.values.dtype.kind in "fc"]
    if not inexact:
        return 0.0
    # Numbers of Python's own were most often taken out of arrays, and those are of float32.
    known = [dtype for dtype in (*inexact, computed_in) if dtype is not None] or ["float32"]
    return max(float(jnp.finfo(dtype).eps) for dtype in known) ** 0.75


def _greatest(values: np.ndarray) -> float:
    sizes = np.abs(values[np.isfinite(values)])
    return float(sizes.max(initial=0))


def _compare(name: str, one: _Leaf, other: _Leaf, allowed: float) -> None:
    a, b = one.values, other.values
    with np.errstate(invalid="ignore"):
        same = a == b
        if {a.dtype.kind, b.dtype.kind} & set("fc"):
            same |= np.isnan(a) & np.isnan(b)
        if np.all(same):
            return
        # As Python's own integers where there are no floats: neighbours beyond 2**53 differ.
        wide = [v if v.dtype.kind in "fc" else v.astype(object) for v in (a, b)]
        gaps = np.where(same, 0.0, np.abs(wide[0] - wide[1]).astype(np.float64))
    gaps = np.where(np.isnan(gaps), math.inf, gaps)
    if gaps.max() <= allowed:
        return
    place = np.unravel_index(int(gaps.argmax()), gaps.shape)
    where = f" at {[int(i) for i in place]}" if place else ""
    raise AssertionError(
        f"{name}: found {a[place]} ({one.dtype}), expected {b[place]} ({other.dtype})"
        f"{where}; they differ by {gaps[place]:.3g}, and {allowed:.3g} is allowed; "
        f"{np.count_nonzero(gaps > allowed)} of {gaps.size} values are too far apart"
    )
