"""The ways in which a derivative is found, the best first: one file each, all with one protocol."""

from __future__ import annotations

from .autograd_again import AutogradAgain
from .engine import DerivedFunction, Engine, Kept
from .func_transforms import FuncTransforms
from .recorded_writes import RecordedWrites
from .saved_residuals import SavedResiduals

# The forward keeps something for the backward. For first derivatives in reverse mode. They find
# nothing (None) where no output depends on the inputs.
KEEPING: tuple[Engine[Kept | None], ...] = (SavedResiduals(),)
# The function runs again. For everything else: forward mode, higher orders, and what is left.
RECOMPUTING: tuple[Engine[DerivedFunction], ...] = (
    FuncTransforms(),
    AutogradAgain(),
    RecordedWrites(),
)

__all__ = ["KEEPING", "RECOMPUTING"]
