"""A run that may not write to its inputs, of a function that could not be watched abstractly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...errors import MutationError
from ...planner.array_signature import ArraySig
from ..handler.failure_messages import mutation_message
from .abstract_evaluation import written_copies
from .watched_run import WriteGuard


class Guarded:
    """Runs a function that could not be watched abstractly without letting it write to inputs.

    Torch's own in-place operations are stopped before they write. What torch does not see (numpy
    writing through shared memory) is looked for in the first run, which works on copies.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        label: str,
        inputs: Sequence[ArraySig],
        *,
        first_on_copies: bool,
        declared: Sequence[int] = (),
    ) -> None:
        self._declared = frozenset(declared)
        self._run = run
        self._label = label
        self._inputs = inputs
        self._first = first_on_copies

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Run under guard.

        Raises:
            MutationError: The function writes to an input that it does not declare, which keeps
                its value.
        """
        # From the second run on, XLA's own memory: a write must be stopped before it happens.
        if not self._first:
            with WriteGuard(tensors, self._refuse):
                return self._run(*tensors)
        copies = [tensor.clone() for tensor in tensors]
        with WriteGuard(copies, self._refuse):
            result = self._run(*copies)
        for index in sorted(written_copies(tensors, copies)):
            self._refuse(index)
        # Not after a failure: the next run is the first that shows anything.
        self._first = False
        return result

    def _refuse(self, index: int) -> None:
        # New values are results as well, so that copies will do in the first run.
        if index in self._declared:
            return
        raise MutationError(
            mutation_message(self._label, self._inputs[index].path),
            callable_name=self._label,
        )
