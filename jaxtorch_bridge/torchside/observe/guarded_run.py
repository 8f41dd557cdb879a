"""A run that may not write to its inputs, of a function that could not be watched abstractly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ...errors import MutationError
from ...planner.array_signature import ArraySig
from ..handler.failure_messages import mutation_message
from .rare_watch import RareWatch
from .watched_run import WriteGuard
from .written_copies import written_copies


class Guarded:
    """Runs a function that could not be watched abstractly and may not write to its inputs.

    In the runs that are watched (`RareWatch`), torch's own in-place operations are stopped before
    they write. What torch does not see (numpy writing through shared memory) is looked for in the
    first, which works on copies. All other runs go free: the handler asks torch after each call
    how often its inputs were written to, which misses writes through ``.data`` alone.
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
        self._watch = RareWatch()

    def __call__(self, *tensors: torch.Tensor) -> Any:
        """Run, under guard where that is due.

        Raises:
            MutationError: The function writes to an input that it does not declare, which keeps
                its value.
        """
        if not self._watch.due():
            return self._run(*tensors)
        if not self._first:
            return self.run_watched(*tensors)
        copies = [tensor.clone() for tensor in tensors]
        result = self.run_on_copies(tensors, copies)
        # Only a run that came to its end has shown anything.
        self._first = False
        return result

    def run_watched(self, *tensors: torch.Tensor) -> Any:
        """Run, and stop torch's in-place operations before they write.

        Raises:
            MutationError: As for a call.
        """
        with WriteGuard(tensors, self._refuse):
            return self._run(*tensors)

    def run_on_copies(self, tensors: Sequence[torch.Tensor], copies: Sequence[torch.Tensor]) -> Any:
        """Run on copies of some tensors, and see whether they still are.

        Raises:
            MutationError: As for a call.
        """
        result = self.run_watched(*copies)
        for index in sorted(written_copies(tensors, copies)):
            self._refuse(index)
        return result

    def _refuse(self, index: int) -> None:
        # New values are results as well, so that copies will do in the first run.
        if index in self._declared:
            return
        raise MutationError(
            mutation_message(self._label, self._inputs[index].path),
            callable_name=self._label,
        )
