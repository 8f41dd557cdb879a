"""The one residual of a recorded run that goes through XLA: by it the backward finds the tape."""

from __future__ import annotations

import os
import secrets

import torch

from ....errors import StaleClosureError
from ....planner.array_signature import ArraySig
from ...closure.closure_guard import ClosureGuard
from ...functions.tensor_function import TensorFunction
from .closure_versions import ClosureVersions
from .recorded_run import Tape
from .tape_table import TAPES

# (process, number, number, versions of weights, flags and Python values around the function)
TOKEN = ArraySig("tape", (5,), "int32", "int32", differentiable=False)
_HALF = 31
_MASK = (1 << _HALF) - 1


class Tokens:
    """Writes the tokens of one function's runs, and reads them."""

    def __init__(self, fn: TensorFunction) -> None:
        self._label = fn.label
        self._key = fn.key
        self._versions = ClosureVersions(fn)
        self._planned = self._versions.now()[1]
        self._guard = ClosureGuard(fn.closure)

    def put(self, tape: Tape | None, device: torch.device) -> torch.Tensor:
        """Hold a tape, and give its token; one is needed where there is no tape as well."""
        number = 0 if tape is None else TAPES.put(tape, self._label, self._key)
        weights, around = self._versions.now()
        words = [_PROCESS.number, number & _MASK, number >> _HALF, weights & _MASK, around & _MASK]
        return torch.tensor(words, dtype=torch.int32, device=device)

    def held(self) -> tuple[int, int]:
        """How many tapes of these runs are held now, and their bytes."""
        return TAPES.held_of(self._key)

    def take(self, token: torch.Tensor) -> Tape | None:
        """The tape of a run; None if there is none any more.

        Raises:
            StaleClosureError: What the function closes over has changed since that run.
        """
        process, low, high, weights, around = token.tolist()
        if process != _PROCESS.number:
            return None
        number = low | high << _HALF
        tape = TAPES.take(number, self._label) if number else None
        now = self._versions.now()
        changed = weights != now[0] & _MASK
        # Another run goes by how the function was planned: what it draws, for one.
        alike = now[1] & _MASK == around and now[1] == self._planned
        if changed or (tape is None and not alike):
            kind = "a tensor" if changed else "a training flag or a Python value"
            named = self._guard.change
            raise StaleClosureError(
                f"{kind} that the function closes over was changed after the forward pass, or "
                f"since the gradient was compiled{f' ({named})' if named else ''}, and the "
                "backward pass needs it as it was. Take the gradient before that, or pass it as "
                "an argument."
            )
        return tape


class _Process:
    """Tells tokens of this process from those of others, which may reach it through arrays."""

    def __init__(self) -> None:
        self.number = 0
        self.draw()

    def draw(self) -> None:
        """Anew: a child after a fork is another process."""
        self.number = secrets.randbelow(_MASK) + 1


_PROCESS = _Process()
os.register_at_fork(after_in_child=_PROCESS.draw)
