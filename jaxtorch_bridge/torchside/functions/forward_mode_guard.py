"""What torch's forward mode leaves out without an error (seen with torch 2.13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._compat.torch_higher_order import OpMode

_OWN = frozenset({"aten", "prims", "prim"})


class NoForwardModeError(RuntimeError):
    """An op has no derivative in forward mode, and torch would take it for a constant."""


class ForwardModeGuard(OpMode):
    """Objects to ops that are not torch's own, while ``torch.func.jvp`` runs a function.

    Those of ``torch.library.custom_op`` are differentiated by what ``register_autograd`` was given,
    which is reverse mode; their tangents would be zero.
    """

    def see(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run an ATen op of torch's own."""
        if getattr(func, "namespace", "aten") not in _OWN:
            raise NoForwardModeError(f"torch has no forward mode of {func}")
        return func(*args, **kwargs)

    def run_higher_order(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Object to an operator that comes here, since it has no code of its own."""
        raise NoForwardModeError(f"torch has no forward mode of {func}")
