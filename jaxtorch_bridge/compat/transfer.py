"""Transfers with the parameters of ``wrap-torch2jax``: a ``via``, and dtypes of either side."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import numpy as np
import torch

from .. import transfer
from ..calling.pytrees import tree_transfer
from ..errors import ArgumentError

Via = Literal["dlpack", "cpu", "host"]


def dtype_t2j(dtype: Any) -> np.dtype[Any]:
    """JAX's dtype for a torch dtype; one of JAX's own comes back as it is.

    Raises:
        DtypeError: JAX has no such dtype.
    """
    partner = dtype if isinstance(dtype, torch.dtype) else transfer.dtype_j2t(dtype)
    return transfer.dtype_t2j(partner)


def dtype_j2t(dtype: Any) -> torch.dtype:
    """Torch's dtype for one of JAX's; one of torch's own comes back as it is.

    Raises:
        DtypeError: Torch has no such dtype.
    """
    return dtype if isinstance(dtype, torch.dtype) else transfer.dtype_j2t(dtype)


def t2j(x: torch.Tensor, via: Via = "dlpack") -> jax.Array:
    """A tensor as a JAX array on the same device.

    Args:
        x: Any dense tensor; a gradient does not flow through.
        via: ``dlpack``: on the same memory where JAX can use it. ``cpu`` or ``host``: a copy.

    Raises:
        TransferError: As `jaxtorch_bridge.t2j`.
        DtypeError: JAX has no such dtype.
        ArgumentError: ``via`` is something else.
    """
    return transfer.t2j(x, copy=_copies(via))


def j2t(x: jax.Array, via: Via = "dlpack") -> torch.Tensor:
    """A JAX array as a tensor on the same device.

    Args:
        x: An array on one device.
        via: ``dlpack``: on the same memory. ``cpu`` or ``host``: a copy.

    Raises:
        TransferError: As `jaxtorch_bridge.j2t`.
        DtypeError: Torch has no such dtype.
        ArgumentError: ``via`` is something else.
    """
    return transfer.j2t(x, copy=_copies(via))


def tree_t2j(xs: Any, via: Via = "dlpack") -> Any:
    """The same pytree with each tensor turned by `t2j`; other leaves stay.

    Raises:
        TransferError: As `t2j`, after the path of the leaf.
        DtypeError: Likewise.
        ArgumentError: ``via`` is something else.
    """
    return tree_transfer.tree_t2j(xs, copy=_copies(via))


def tree_j2t(xs: Any, via: Via = "dlpack") -> Any:
    """The same pytree with each JAX or numpy array turned by `j2t`; other leaves stay.

    Raises:
        TransferError: As `j2t`, after the path of the leaf.
        DtypeError: Likewise.
        ArgumentError: ``via`` is something else.
    """
    return tree_transfer.tree_j2t(xs, copy=_copies(via))


def _copies(via: Via) -> bool | None:
    if via not in get_args(Via):
        raise ArgumentError(f"expected via as one of {', '.join(get_args(Via))}; got {via!r}.")
    return None if via == "dlpack" else True
