"""What torch's forward mode leaves out without an error (seen with torch 2.13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._compat.torch_internals import TorchDispatchMode

_OWN = frozenset({"aten", "prims", "prim"})


class NoForwardModeError(RuntimeError):
    """An op has no derivative in forward mode, and torch would take it for a constant."""


class ForwardModeGuard(TorchDispatchMode):
    """Objects to ops that are not torch's own, while ``torch.func.jvp`` runs a function.

    Those of ``torch.library.custom_op`` are differentiated by what ``register_autograd`` was given,
    which is reverse mode; their tangents would be zero.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "namespace", "aten") not in _OWN:
            raise NoForwardModeError(f"torch has no forward mode of {func}")
        return func(*args, **(kwargs or {}))
