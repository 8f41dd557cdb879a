"""How what is found is compared with what torch gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import torch

from comparing import assert_close
from jaxtorch_bridge.dtypes import canonical_name


def comparison_of(
    values: bool, *, together: bool = False
) -> Callable[[Sequence[Any], Sequence[torch.Tensor]], None]:
    """How results are compared.

    Args:
        values: Whether values count, and not shapes and dtypes alone.
        together: Rounding is relative to the greatest of all values, not of each array's: what is
            derived may be what is left of greater numbers.
    """

    def close(found: Sequence[Any], expected: Sequence[torch.Tensor]) -> None:
        wanted = [_narrowed(tensor) for tensor in expected]
        finite = [tensor[tensor.isfinite()].abs().double() for tensor in wanted if together]
        scale = max((float(sizes.max()) for sizes in finite if sizes.numel()), default=0.0)
        assert_close(list(found), wanted, scale=scale)

    return close if values else _alike


def _alike(found: Sequence[Any], expected: Sequence[torch.Tensor]) -> None:
    ours, theirs = (
        [(tuple(value.shape), str(value.dtype).removeprefix("torch.")) for value in side]
        for side in (found, map(_narrowed, expected))
    )
    assert ours == theirs, f"found {ours}, expected {theirs}"


def _narrowed(tensor: torch.Tensor) -> torch.Tensor:
    """With the dtype that JAX has for it, which depends on whether 64-bit dtypes are on."""
    name = str(tensor.dtype).removeprefix("torch.")
    return tensor.to(getattr(torch, canonical_name(name, x64=bool(jax.config.jax_enable_x64))))
