"""Operations that make one element of many: sums, extremes, products, softmax, order."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ....planner.aten_program import ResultSig
from ..registry import axes_of, computed_in, dtype_of, limits_of
from .bounded_step import BoundedStep, axis_of, bound_at, bounded, sizes_of


def _neutral(fill: Any, *names: str) -> None:
    @bounded(*names)
    def rule(call: BoundedStep) -> Any:
        if fill == -jnp.inf:
            call.args[0] = call.args[0].astype(dtype_of(call.results[0].dtype))
        call.fill(fill)
        return call.plain()


_neutral(0, "sum.default", "sum.dim_IntList", "any.default", "any.dim", "any.dims")
_neutral(1, "prod.default", "prod.dim_int", "all.default", "all.dim", "all.dims")
_neutral(-jnp.inf, "logsumexp.default", "_softmax.default", "_safe_softmax.default")
_neutral(-jnp.inf, "_log_softmax.default")
# What comes behind what is there does not reach it; NaN might, where a sum is made of products.
_neutral(0, "cumsum.default", "logcumsumexp.default", "cummax.default", "cummin.default")
_neutral(1, "cumprod.default")
_neutral(
    0,
    *("mm.default", "bmm.default", "addmm.default", "baddbmm.default", "mv.default"),
    *("addmv.default", "dot.default", "_softmax_backward_data.default"),
    "_log_softmax_backward_data.default",
)


def _extreme(place: int, *names: str) -> None:
    """Of limits the least for the greatest, and the other way round."""

    @bounded(*names)
    def rule(call: BoundedStep) -> Any:
        (_, sig) = next(call.arrays())
        call.fill(limits_of(dtype_of(sig.dtype))[place], 0)
        whole = call.step.op.startswith("arg") and _dim(call) is None
        # Places are counted row by row, where each row is as long as it is.
        if whole and any(size is not None for size in sig.bounded[1:]):
            raise call.refuse("places among rows whose length follows from values")
        return call.plain()


_extreme(0, "amax.default", "max.default", "max.dim", "argmax.default")
_extreme(1, "amin.default", "min.default", "min.dim", "argmin.default")


def _dim(call: BoundedStep) -> Any:
    return call.args[1] if len(call.args) > 1 else call.kwargs.get("dim")


def _many(call: BoundedStep, sig: ResultSig, axes: tuple[int, ...]) -> Any:
    """How many elements one is made of."""
    count = jnp.ones((), jnp.int64)
    for axis in axes:
        count = count * call.value(sizes_of(sig)[axis])
    return count


@bounded("mean.default", "mean.dim")
def mean(call: BoundedStep) -> Any:
    """Of those that are there; NaN of none."""
    (_, sig), (result,) = next(call.arrays()), call.results
    axes = axes_of(_dim(call), len(sig.shape))
    call.fill(0)
    out = dtype_of(result.dtype)
    wide = call.args[0].astype(computed_in(out))
    total = jnp.sum(wide, axis=axes).reshape(result.shape)
    return (total / _many(call, sig, axes).astype(total.dtype)).astype(out)


@bounded("var.correction", "std.correction", "var_mean.correction")
def variance(call: BoundedStep) -> Any:
    """Of those that are there."""
    (_, sig), result = next(call.arrays()), call.results[0]
    axes = axes_of(_dim(call), len(sig.shape))
    given = call.kwargs.get("correction")
    call.fill(0)
    wide = call.args[0].astype(computed_in(call.args[0].dtype))
    count = _many(call, sig, axes)
    real = jnp.abs(wide).dtype
    centre = jnp.sum(wide, axis=axes, keepdims=True) / count.astype(real)
    apart = call.filled(jnp.abs(wide - centre), sig, 0)
    freedom = jnp.maximum(count.astype(real) - (1 if given is None else given), 0)
    found = jnp.sum(apart * apart, axis=axes) / freedom
    if call.step.op == "std.correction":
        found = jnp.sqrt(found)
    found = found.reshape(result.shape).astype(dtype_of(result.dtype))
    if call.step.op != "var_mean.correction":
        return found
    other = call.results[1]
    return found, centre.reshape(other.shape).astype(dtype_of(other.dtype))


@bounded("sort.default", "sort.stable", "argsort.default", "argsort.stable")
def sort(call: BoundedStep) -> Any:
    """The padding behind what is there, which keeps its order."""
    (_, sig) = next(call.arrays())
    dim = call.kwargs.get("dim", -1)
    if call.step.op != "sort.stable" and len(call.args) > 1:
        dim = call.args[1]
    axis = axis_of(dim, sig)
    size = bound_at(sig, axis)
    found = call.plain()
    if size is None:
        return found
    places = found if call.step.op.startswith("arg") else found[1]
    behind = jnp.argsort(places >= call.value(size), axis=axis, stable=True)
    places = jnp.take_along_axis(places, behind, axis=axis)
    if call.step.op.startswith("arg"):
        return places
    return jnp.take_along_axis(call.args[0], places, axis=axis), places
