"""How calls on several devices share what a torch function closes over: decided and set up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..choices import ConcurrencyMode
from ..errors import ConcurrencyError
from ..planner.concurrency import Concurrency, choose_concurrency
from ..planner.output_inference import Inference
from ..torchside.closure.closure_state import ClosureState
from ..torchside.functions.call_locks import Access, access_to
from ..torchside.modules.replicas import Replicas, replica_of
from ..torchside.observe.watched_run import Observed
from .arguments import Leaves
from .flat_function import FlatFunction


class Sharing:
    """Sharing of one torch function.

    Args:
        function: The torch function.
        closure: What it closes over.
        asked: What the contract or the caller asks for.
        label: The callable's name, for messages.

    Raises:
        ConcurrencyError: Replicas are asked for and none can be made.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        closure: ClosureState,
        asked: ConcurrencyMode | None,
        label: str,
    ) -> None:
        self._function = function
        self._closure = closure
        self._asked = asked
        self._label = label
        if asked == "replicated":
            try:
                replica_of([function], closure.parts())
            except ConcurrencyError as error:
                raise self._refused(str(error)) from error

    def arrange(
        self, leaves: Leaves, inference: Inference, observed: Observed
    ) -> tuple[Concurrency, Access]:
        """The choice for one way of calling, and what its calls hold.

        Raises:
            ConcurrencyError: Replicas are asked for and none can be made.
        """
        no_replica = None
        if self._asked == "replicated" or (self._asked is None and inference.swaps):
            try:
                self._replica(leaves, observed)
            except ConcurrencyError as error:
                no_replica = str(error)
        found = choose_concurrency(self._asked, inference, self._closure.words(), no_replica)
        if isinstance(found, str):
            raise self._refused(found)
        replicas = None
        if found.mode == "replicated":
            structure = inference.structure
            replicas = Replicas(
                lambda: self._replica(leaves, observed).runner(structure, self._label),
                self._closure,
            )
        access = access_to(
            self._closure,
            observed,
            exclusive=found.mode == "locked",
            replicas=replicas,
            draws=inference.random or not inference.traced,
            owner=self._function,
        )
        return found, access

    def _replica(self, leaves: Leaves, observed: Observed) -> FlatFunction:
        modules = [*self._closure.parts(), *observed.modules]
        function, *template = replica_of([self._function, *leaves.template], modules)
        return FlatFunction(function, replace(leaves, template=template))

    def _refused(self, why: str) -> ConcurrencyError:
        return ConcurrencyError(
            f"{self._label}: concurrency `replicated` was asked for, but no replica can be made: "
            f"{why}. Ask for `locked`, or leave the choice to the planner."
        )
