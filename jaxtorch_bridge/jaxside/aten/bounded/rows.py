"""Operations that leave each element, or each row, to itself, and those that only arrange them."""

from __future__ import annotations

import functools
import operator
from typing import Any

import jax.numpy as jnp
from jax import lax

from ....planner.aten_program import COMPARES_SIZES, COUNTS_EXTREME, BoundedSize
from .bounded_step import BoundedStep, axis_of, bound_at, bounded, sizes_of


@bounded(COMPARES_SIZES)
def compared(call: BoundedStep) -> Any:
    """Whether two sizes are as they have to be."""
    relation, left, right = call.args
    return _RELATIONS[relation](call.value(left), call.value(right))


@bounded(COUNTS_EXTREME)
def extreme(call: BoundedStep) -> Any:
    """A count of sizes."""
    which, number, *sizes = call.args
    found = functools.reduce(jnp.minimum if which == "min" else jnp.maximum, map(call.value, sizes))
    call.set_count(number, found)
    return ()


_RELATIONS = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@bounded("pointwise")
def pointwise(call: BoundedStep) -> Any:
    """Padding comes of padding."""
    (result, *_) = call.results
    wanted = sizes_of(result)
    for _, sig in call.arrays():
        sizes = sizes_of(sig)
        for size, other in zip(reversed(sizes), reversed(wanted), strict=False):
            if size not in (1, other):
                raise call.refuse(
                    f"two sizes that follow from values ({_words(size)}, {_words(other)}), which "
                    "only a run could tell to be one"
                )
    call.args = [_number(call, one) for one in call.args]
    call.kwargs = {name: _number(call, one) for name, one in call.kwargs.items()}
    return call.plain()


def _words(size: int | BoundedSize) -> str:
    return f"at most {size.most}" if isinstance(size, BoundedSize) else str(size)


def _number(call: BoundedStep, value: Any) -> Any:
    return call.value(value) if isinstance(value, BoundedSize) else value


@bounded(
    "permute.default",
    "t.default",
    "transpose.int",
    "unsqueeze.default",
    "expand.default",
    "alias.default",
    "detach.default",
    "lift_fresh_copy.default",
    "_to_copy.default",
    "zeros.default",
    "zeros_like.default",
    "new_zeros.default",
    "ones.default",
    "ones_like.default",
    "new_ones.default",
    "empty.memory_format",
    "empty_like.default",
    "new_empty.default",
    "new_empty_strided.default",
)
def arranged(call: BoundedStep) -> Any:
    """Which sizes there are does not matter."""
    return call.plain(sizes=True)


@bounded(
    "full.default", "full_like.default", "new_full.default", "scalar_tensor.default", "fill.Scalar"
)
def full(call: BoundedStep) -> Any:
    """A count may be what it is full of."""
    if isinstance(call.args[-1], BoundedSize):
        call.args[-1] = call.value(call.args[-1])
    return call.plain(sizes=True)


@bounded("arange.default", "arange.start", "arange.start_step")
def arange(call: BoundedStep) -> Any:
    """As many as there may be."""
    others = (*call.args[:1], *call.args[2:]) if len(call.args) > 1 else ()
    if any(isinstance(one, BoundedSize) for one in others):
        raise call.refuse("it begins, or goes by, a number that follows from values")
    return call.plain(sizes=True)


@bounded("squeeze.default", "squeeze.dim", "squeeze.dims")
def squeeze(call: BoundedStep) -> Any:
    """Of axes whose size is known."""
    (_, sig) = next(call.arrays())
    dims = call.args[1] if len(call.args) > 1 else range(len(sig.shape))
    for dim in (dims,) if isinstance(dims, int) else dims:
        if bound_at(sig, axis_of(dim, sig)) is not None:
            raise call.refuse("an axis whose size follows from values")
    return call.plain()


@bounded("unbind.int", "split_with_sizes.default", "split.Tensor", "select_scatter.default")
def part(call: BoundedStep) -> Any:
    """Along axes whose size is known."""
    place = 1 if call.step.op.startswith("unbind") else 2
    dim = call.args[place] if len(call.args) > place else call.kwargs.get("dim", 0)
    (_, sig) = next(call.arrays())
    if bound_at(sig, axis_of(dim, sig)) is not None:
        raise call.refuse("a part of an axis whose size follows from values")
    return call.plain()


@bounded("slice.Tensor")
def slice_(call: BoundedStep) -> Any:
    """What lies behind the start, to the front."""
    (_, sig), (result,) = next(call.arrays()), call.results
    dim, start, step = _slice(call.args[1:])
    axis = axis_of(dim, sig)
    bounds = (bound_at(sig, axis), bound_at(result, axis))
    if bounds == (None, None) and not isinstance(start, BoundedSize):
        return call.plain()
    first = _first(call, start, step)
    places = jnp.arange(result.shape[axis]) + first
    return jnp.take(call.args[0], places, axis=axis, mode="clip")


def _slice(given: list[Any]) -> tuple[Any, Any, Any]:
    """The axis, the start and the step of arguments that may be left out."""
    whole: list[Any] = [0, None, None, 1]
    whole[: len(given)] = given
    return whole[0], whole[1], whole[3]


def _first(call: BoundedStep, start: Any, step: Any) -> Any:
    """Where a part of an axis begins that has no gaps."""
    if isinstance(start, BoundedSize):
        # From the end, if that is less than nothing.
        wraps = any(factor < 0 for factor, _ in start.terms)
    else:
        wraps = start is not None and start < 0
    if step != 1 or wraps:
        raise call.refuse("a part of an axis whose size follows from values")
    return call.value(start or 0)


@bounded("slice_scatter.default")
def slice_scatter(call: BoundedStep) -> Any:
    """What lies behind the start replaced, as far as there is something to replace it."""
    (place, sig), source = next(call.arrays()), call.sigs[1]
    dim, start, step = _slice(call.args[2:])
    axis = axis_of(dim, sig)
    bounds = (bound_at(sig, axis), bound_at(source, axis))
    if bounds == (None, None) and not isinstance(start, BoundedSize):
        return call.plain()
    first = _first(call, start, step)
    at = jnp.arange(sig.shape[axis])
    found = jnp.take(call.args[1], at - first, axis=axis, mode="clip")
    inside = (at >= first) & (at < first + call.value(sizes_of(source)[axis]))
    inside = inside.reshape([-1 if one == axis else 1 for one in range(len(sig.shape))])
    return jnp.where(inside, found.astype(call.args[place].dtype), call.args[place])


@bounded("select.int")
def select(call: BoundedStep) -> Any:
    """One place, which is there: the graph has a check otherwise."""
    (_, sig), dim, at = next(call.arrays()), call.args[1], call.args[2]
    axis = axis_of(dim, sig)
    if bound_at(sig, axis) is None and not isinstance(at, BoundedSize):
        return call.plain()
    at = call.value(at)
    at = jnp.where(at < 0, at + call.value(sizes_of(sig)[axis]), at)
    return jnp.take(call.args[0], at, axis=axis, mode="clip")


@bounded("view.default", "reshape.default", "_unsafe_view.default", "_reshape_copy.default")
def view(call: BoundedStep) -> Any:
    """Where what is there stays in front: of the axes that change only the first is bounded."""
    (_, sig), result = next(call.arrays()), call.results[0]
    before, after = list(sizes_of(sig)), list(sizes_of(result))
    while before and after and before[-1] == after[-1]:
        del before[-1], after[-1]
    while before and after and before[0] == after[0]:
        del before[0], after[0]
    for sizes in (before, after):
        while sizes and sizes[0] == 1:
            del sizes[0]
        if any(isinstance(size, BoundedSize) for size in sizes[1:]):
            raise call.refuse("axes whose sizes follow from values are merged with others")
    return call.plain(sizes=True)


@bounded("constant_pad_nd.default")
def constant_pad(call: BoundedStep) -> Any:
    """Along axes whose size is known."""
    (_, sig), pad = next(call.arrays()), call.args[1]
    for number in range(len(pad) // 2):
        axis = len(sig.shape) - 1 - number
        if bound_at(sig, axis) is not None and (pad[2 * number] or pad[2 * number + 1]):
            raise call.refuse("padding of an axis whose size follows from values")
    return call.plain()


@bounded("cat.default")
def cat(call: BoundedStep) -> Any:
    """What is there of each behind what is there of those before it."""
    arrays, sigs, result = call.args[0], call.sigs[0], call.results[0]
    dim = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)
    axis = axis_of(dim, result)
    if bound_at(result, axis) is None:
        return call.plain()
    shape = (result.shape[axis], *result.shape[:axis], *result.shape[axis + 1 :])
    found, first = jnp.zeros(shape, jnp.result_type(*arrays)), jnp.zeros((), jnp.int64)
    for array, sig in zip(arrays, sigs, strict=True):
        if len(sig.shape) != len(result.shape):
            continue  # an empty one, which has no place
        size = call.value(sizes_of(sig)[axis])
        places = jnp.arange(sig.shape[axis])
        places = jnp.where(places < size, first + places, shape[0])
        rows = jnp.moveaxis(array.astype(found.dtype), axis, 0)
        found = found.at[places].set(rows, mode="drop")
        first = first + size
    return jnp.moveaxis(found, 0, axis)


@bounded("stack.default")
def stack(call: BoundedStep) -> Any:
    """Of alike ones."""
    if len({sizes_of(sig) for sig in call.sigs[0]}) > 1:
        raise call.refuse("sizes that follow from values and are not alike")
    return call.plain()


@bounded(
    "convolution.default",
    "native_group_norm.default",
    "_native_batch_norm_legit_no_training.default",
    "max_pool2d_with_indices.default",
    "max_pool2d_with_indices_backward.default",
    "avg_pool2d.default",
    "avg_pool2d_backward.default",
    "_adaptive_avg_pool2d.default",
    "_adaptive_avg_pool2d_backward.default",
    "upsample_nearest2d.vec",
    "upsample_nearest2d.default",
)
def images(call: BoundedStep) -> Any:
    """Each image for itself: only how many there are may be bounded."""
    if call.step.op == "native_group_norm.default" and isinstance(call.args[3], BoundedSize):
        call.args[3] = call.args[3].most
    for _, sig in call.arrays():
        if any(size is not None for size in sig.bounded[1:]):
            raise call.refuse(
                "another axis than that of the batch has a size that follows from values"
            )
    return call.plain()


@bounded("convolution_backward.default")
def convolution_backward(call: BoundedStep) -> Any:
    """What is no image adds nothing to the gradient of the weights."""
    call.fill(0)
    return images(call)


@bounded("native_layer_norm.default")
def layer_norm(call: BoundedStep) -> Any:
    """Over axes whose sizes are known."""
    (_, sig), last = next(call.arrays()), len(call.args[1])
    if any(size is not None for size in sig.bounded[len(sig.shape) - last :]):
        raise call.refuse("it normalises over a size that follows from values")
    return call.plain()


@bounded("native_layer_norm_backward.default")
def layer_norm_backward(call: BoundedStep) -> Any:
    """What is no row adds nothing to the gradients of scale and shift."""
    call.fill(0)
    return call.plain()


@bounded("flip.default")
def flip(call: BoundedStep) -> Any:
    """Backwards; what is there stays in front."""
    (place, sig), dims = next(call.arrays()), call.args[1]
    known: list[int] = []
    for dim in dims:
        axis = axis_of(dim, sig)
        size = bound_at(sig, axis)
        if size is None:
            known.append(dim)
            continue
        places = lax.iota(jnp.int64, sig.shape[axis])
        places = jnp.maximum(call.value(size) - 1 - places, 0)
        call.args[place] = jnp.take(call.args[place], places, axis=axis)
    call.args[1] = tuple(known)
    return call.plain()
