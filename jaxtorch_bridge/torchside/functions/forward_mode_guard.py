"""What torch's forward mode leaves out without an error (seen with torch 2.13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from ..._compat.torch.autograd import is_own
from ..._compat.torch.operators.higher_order import OpMode


class NoForwardModeError(RuntimeError):
    """An op has no derivative in forward mode, and torch would take it for a constant."""


class ForwardModeGuard(OpMode):
    """Objects to ops that are not torch's own, while ``torch.func.jvp`` runs a function.

    Those of ``torch.library.custom_op`` are differentiated by what ``register_autograd`` was given,
    which is reverse mode; their tangents would be zero.
    """

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an ATen op of torch's own."""
        if not is_own(func):
            raise NoForwardModeError(f"torch has no forward mode of {func}")
        return func(*args, **kwargs)

    def run_higher_order(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Object to an operator that comes here, since it has no code of its own."""
        raise NoForwardModeError(f"torch has no forward mode of {func}")


def refuse_without_tangent(results: Sequence[torch.Tensor]) -> None:
    """Object to results that have no tangent, inside of ``torch.func.jvp``.

    Reverse mode leads back from them to the inputs, so that torch's zeros in their place are wrong.

    Raises:
        NoForwardModeError: There is one.
    """
    for index, result in enumerate(results):
        if forward_ad.unpack_dual(result).tangent is None:
            raise NoForwardModeError(f"torch's forward mode lost the tangent of result {index}")
