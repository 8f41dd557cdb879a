"""Which engine finds a derivative: all of them, the best first."""

from __future__ import annotations

from .engines.autograd_again import AutogradAgain
from .engines.engine import DerivedFunction, Engine, Kept
from .engines.func_transforms import FuncTransforms
from .engines.kept_tape import KeptTape
from .engines.recorded_writes import RecordedWrites

# The forward keeps something for the backward. For first derivatives in reverse mode. They find
# nothing (None) where no output depends on the inputs.
KEEPING: tuple[Engine[Kept | None], ...] = (KeptTape(),)
# The function runs again. For everything else: forward mode, higher orders, and what is left.
RECOMPUTING: tuple[Engine[DerivedFunction], ...] = (
    FuncTransforms(),
    AutogradAgain(),
    RecordedWrites(),
)

__all__ = ["KEEPING", "RECOMPUTING"]
