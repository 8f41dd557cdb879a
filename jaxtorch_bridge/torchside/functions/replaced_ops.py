"""Plain operations in place of some of torch's that have wrong higher derivatives.

Of normalisations, ``torch.vmap`` takes the statistics that their backward was given for
constants, and the third derivative of ``layer_norm`` is wrong without it too. The third derivative
of ``det`` is not a number under ``torch.func``. Lower derivatives are right, and the operations
stay in use for those. The first derivative of ``select_scatter`` under ``torch.vmap`` is too large
by the size of the axis, and that of ``cdist`` gives each cotangent of a batch the first one's
gradient (all seen with torch 2.13).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..._compat.torch.operators.higher_order import CallMode
from ..._compat.torch.thread_flags import is_any_autocast_enabled
from .tensor_function import Core

_NARROW = (torch.float16, torch.bfloat16)


def with_plain_norms(function: Core) -> Core:
    """The function with its normalisations made of plain operations."""

    return _under(_NORMS, function)


def with_plain_determinants(function: Core) -> Core:
    """The function with its determinants by LU factors; for third and higher derivatives."""
    return _under(_DETERMINANTS, function)


def with_right_batches(function: Core) -> Core:
    """The function without what ``torch.vmap`` has wrong rules for, in the derivative of that."""
    return _under(_BATCHED, function)


def _under(table: dict[Any, Any], function: Core) -> Core:
    def run(*tensors: torch.Tensor) -> Sequence[torch.Tensor]:
        with _Replacing(table):
            return function(*tensors)

    return run


class _Replacing(CallMode):
    def __init__(self, table: dict[Any, Any]) -> None:
        super().__init__()
        self._table = table

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        plain = self._table.get(func)
        # Autocast decides on the dtypes of the fused operations as wholes.
        if plain is None or is_any_autocast_enabled():
            return func(*args, **kwargs)
        found = plain(*args, **_renamed(kwargs))
        # None: a case that the plain operations leave to torch.
        return func(*args, **kwargs) if found is None else found


def _renamed(keywords: dict[str, Any]) -> dict[str, Any]:
    # What torch calls the first argument of these operations.
    return {"x" if name in ("input", "A") else name: value for name, value in keywords.items()}


def _layer_norm(
    x: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> torch.Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    normal, _, _ = _normalised(x, axes, eps)
    return _scaled(normal, weight, bias).to(x.dtype)


def _batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> torch.Tensor | None:
    # Left to torch: by kept statistics it is linear.
    if not training:
        return None
    axes = (0, *range(2, x.ndim))
    normal, mean, variance = _normalised(x, axes, eps)
    if running_mean is not None and running_var is not None:
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            # In place, as torch does: these are the module's own buffers.
            running_mean.lerp_(mean.flatten().to(running_mean.dtype), momentum)
            # Torch divides by n where it normalises, and by n - 1 for what it keeps.
            unbiased = variance.flatten() * (count / max(count - 1, 1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return _scaled(normal, _shaped(weight, shape), _shaped(bias, shape)).to(x.dtype)


def _instance_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> torch.Tensor | None:
    # Left to torch where there are kept statistics, to use or to update.
    if not use_input_stats or running_mean is not None:
        return None
    normal, _, _ = _normalised(x, tuple(range(2, x.ndim)), eps)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return _scaled(normal, _shaped(weight, shape), _shaped(bias, shape)).to(x.dtype)


def _functional_batch_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None,
    running_var: torch.Tensor | None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor | None:
    return _batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)


def _functional_instance_norm(
    x: torch.Tensor,
    running_mean: torch.Tensor | None = None,
    running_var: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> torch.Tensor | None:
    return _instance_norm(
        x, weight, bias, running_mean, running_var, use_input_stats, momentum, eps
    )


# Both forms: inside of a function that a mode has caught, the mode is off.
_NORMS: dict[Any, Any] = {
    torch.layer_norm: _layer_norm,
    torch.batch_norm: _batch_norm,
    torch.instance_norm: _instance_norm,
    torch.nn.functional.layer_norm: _layer_norm,
    torch.nn.functional.batch_norm: _functional_batch_norm,
    torch.nn.functional.instance_norm: _functional_instance_norm,
}


def _normalised(
    x: torch.Tensor, axes: tuple[int, ...], eps: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    # As the fused kernels do, half precision is computed in float32.
    wide = x.float() if x.dtype in _NARROW else x
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    variance = (centred * centred).mean(axes, keepdim=True)
    return centred * torch.rsqrt(variance + eps), mean, variance


def _scaled(
    normal: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None
) -> torch.Tensor:
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias


def _shaped(tensor: torch.Tensor | None, shape: Sequence[int]) -> torch.Tensor | None:
    return None if tensor is None else tensor.reshape(tuple(shape))


def _determinant(x: torch.Tensor) -> torch.Tensor:
    permutation, _, upper = torch.linalg.lu(x)
    # 1 or -1, which does not move with the matrix.
    sign = torch.linalg.det(permutation.detach())
    found: torch.Tensor = sign * upper.diagonal(dim1=-2, dim2=-1).prod(-1)
    return found


def _select_scatter(x: torch.Tensor, src: torch.Tensor, dim: int, index: int) -> torch.Tensor:
    # With both ends, counted from the front: torch.vmap knows no others.
    start = index % x.shape[dim] if -x.shape[dim] <= index < x.shape[dim] else index
    part = src.unsqueeze(dim if dim >= 0 else dim + x.ndim)
    return torch.slice_scatter(x, part, dim, start, start + 1)


def _cdist(
    x1: torch.Tensor, x2: torch.Tensor, p: float = 2.0, compute_mode: str = ""
) -> torch.Tensor | None:
    # It takes memory for each difference; without a derivative torch's own is right.
    if not (x1.requires_grad or x2.requires_grad):
        return None
    apart = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    found: torch.Tensor = torch.linalg.vector_norm(apart, ord=p, dim=-1)
    return found


_BATCHED: dict[Any, Any] = {
    torch.select_scatter: _select_scatter,
    torch.Tensor.select_scatter: _select_scatter,
    torch.cdist: _cdist,
}
_DETERMINANTS: dict[Any, Any] = dict.fromkeys(
    (torch.linalg.det, torch.det, torch.Tensor.det), _determinant
)
