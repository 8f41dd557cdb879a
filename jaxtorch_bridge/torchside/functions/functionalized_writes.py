"""Functions that write in place, with each write replaced by the computation of a new value.

``torch.func.functionalize`` does it above autograd, so a value that the derivative needs stays what
it was when a later write replaces it. Some calls are made another way first (seen with torch 2.13):
where autograd knows no derivative of what comes out; where functionalize has no out-of-place form;
and where a view selects an element, since a write to it becomes a ``select_scatter``, of which the
derivative under ``torch.vmap`` is too large by the size of the axis. Other views it gets wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..._compat.torch.operators.higher_order import CallMode
from .tensor_function import Core

# Aliases of in-place methods, and some that are made of others: functionalize refuses them.
_WITHOUT_RULE = [
    "absolute_",
    "arccos_",
    "arccosh_",
    "arcsin_",
    "arcsinh_",
    "arctan_",
    "arctan2_",
    "arctanh_",
    "clip_",
    "divide_",
    "fix_",
    "float_power_",
    "greater_",
    "greater_equal_",
    "less_",
    "less_equal_",
    "multiply_",
    "negative_",
    "not_equal_",
    "polygamma_",
    "square_",
    "subtract_",
    "true_divide_",
]
# Of their out-of-place forms autograd has no derivative.
_DRAWS = ("bernoulli_", "normal_", "uniform_", "exponential_", "cauchy_", "log_normal_")


def functional(function: Core) -> Core:
    """The function with in-place operations out of place; its own tensors are not written to."""

    def run(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        with _Writing():
            return tuple(function(*tensors))

    # Around the mode: it sees calls as the function makes them, before functionalize does.
    return torch.func.functionalize(run)


class _Writing(CallMode):
    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        other = _VIEWS.get(func)
        # Only what has a derivative that could be lost.
        if other is None and func in _WRITES and _moves(args[0]):
            other = _WRITES[func]
        return (other or func)(*args, **kwargs)


def _moves(target: Any) -> bool:
    first = target[0] if isinstance(target, (list, tuple)) and target else target
    return isinstance(first, torch.Tensor) and (
        # Floats of one byte cannot be added to, as `_write` does.
        first.is_complex() or (first.is_floating_point() and first.element_size() > 1)
    )


def _write(target: torch.Tensor, value: Any) -> torch.Tensor:
    """``copy_``, whose out-of-place form has no derivative."""
    # A copy: it may be a view of the target (`x[0] *= 2` assigns what it has written to).
    value = torch.as_tensor(value).to(device=target.device, dtype=target.dtype, copy=True)
    # Added to -0 every number stays what it is, 0 included. Not by `fill_` and the like, of which
    # torch.vmap knows nothing.
    everywhere = torch.ones((), dtype=torch.bool, device=target.device)
    zero = complex(-0.0, -0.0) if target.is_complex() else -0.0
    return target.masked_fill_(everywhere, zero).add_(value)


def _copy(target: torch.Tensor, source: Any, non_blocking: bool = False) -> torch.Tensor:
    return _write(target, source)


def _item(target: torch.Tensor, index: Any) -> torch.Tensor:
    parts = _view_parts(target, index)
    if parts is None:
        return target[index]
    found = target[index]  # refuses what is out of range
    axis, cut = 0, []
    for part in parts:
        if part is not None:
            size = target.shape[axis]
            axis += 1
            place = None if isinstance(part, slice) else int(part) % size
            # With its ends, which torch.vmap cannot do without.
            part = slice(*part.indices(size)) if place is None else slice(place, place + 1)
        cut.append(part)
    return target[tuple(cut)].view(found.shape)


def _view_parts(target: torch.Tensor, index: Any) -> list[Any] | None:
    """The index with one part for each axis; None if it is none that makes a view."""
    parts = list(index) if isinstance(index, tuple) else [index]
    # To Python a bool is a number, to torch a mask.
    if any(isinstance(part, (bool, np.bool_)) for part in parts):
        return None
    if not all(
        part is None or part is ... or isinstance(part, (int, np.integer, slice)) for part in parts
    ):
        return None
    missing = target.ndim - sum(part is not None and part is not ... for part in parts)
    rest = [slice(None)] * missing
    if ... not in parts:
        return [*parts, *rest]
    place = parts.index(...)
    return [*parts[:place], *rest, *parts[place + 1 :]]


def _select(target: torch.Tensor, dim: int, index: int) -> torch.Tensor:
    return target.narrow(dim, index, 1).squeeze(dim)


def _imaginary(target: torch.Tensor) -> torch.Tensor:
    if target.is_conj() or not target.is_complex():
        return target.imag
    return _select(torch.view_as_real(target), -1, 1)


def _real(target: torch.Tensor) -> torch.Tensor:
    if target.is_conj() or not target.is_complex():
        return target.real
    return _select(torch.view_as_real(target), -1, 0)


def _refused(target: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    raise NotImplementedError("functionalize loses what writes to such a view leave alone")


def _unbind(target: torch.Tensor, dim: int = 0) -> tuple[torch.Tensor, ...]:
    return tuple(_select(target, dim, index) for index in range(target.shape[dim]))


def _set_item(target: torch.Tensor, index: Any, value: Any) -> None:
    if _view_parts(target, index) is None:
        target[index] = value
        return
    view = _item(target, index)
    value = torch.as_tensor(value)
    # As torch's own assignment, which lets leading axes of size 1 go.
    while value.ndim > view.ndim and value.shape[0] == 1:
        value = value[0]
    _write(view, value)


def _copy_all(targets: Sequence[torch.Tensor], sources: Sequence[torch.Tensor], *_: Any) -> None:
    for target, source in zip(targets, sources, strict=True):
        _write(target, source)


def _out_of_place(name: str) -> Callable[..., torch.Tensor]:
    method = getattr(torch.Tensor, name.removesuffix("_"))

    def write(target: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return _write(target, method(target, *args, **kwargs))

    return write


def _drawn(name: str) -> Callable[..., torch.Tensor]:
    method = getattr(torch.Tensor, name)

    def write(target: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        # Drawn into a tensor that autograd does not follow, then written.
        return _write(target, method(torch.empty_like(target.detach()), *args, **kwargs))

    return write


# By the functions that a mode is given: methods and functions are two of them.
_VIEWS: dict[Any, Callable[..., Any]] = {
    torch.Tensor.__getitem__: _item,
    torch.Tensor.select: _select,
    torch.select: _select,
    torch.Tensor.unbind: _unbind,
    torch.unbind: _unbind,
    torch.Tensor.real.__get__: _real,  # type: ignore[attr-defined]
    torch.real: _real,
    torch.Tensor.imag.__get__: _imaginary,  # type: ignore[attr-defined]
    torch.imag: _imaginary,
    torch.Tensor.unfold: _refused,
    torch.Tensor.as_strided: _refused,
    torch.as_strided: _refused,
}
_WRITES: dict[Any, Callable[..., Any]] = {
    torch.Tensor.copy_: _copy,
    torch.Tensor.fill_: _write,
    torch.Tensor.zero_: lambda target: _write(target, 0.0),
    torch.Tensor.__setitem__: _set_item,
    torch._foreach_copy_: _copy_all,
    **{getattr(torch.Tensor, name): _out_of_place(name) for name in _WITHOUT_RULE},
    **{getattr(torch.Tensor, name): _drawn(name) for name in _DRAWS},
}
