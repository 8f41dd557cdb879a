"""The outputs of a function that only its contract tells, in the containers of its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import SpecMismatchError
from ...planner.array_signature import ArraySig, OutputMeta
from ...planner.build_plan import counts_behind, own_paths
from ...planner.options import Options
from ...planner.output_inference import How, Inference
from ...planner.output_order import contract_order
from ...torchside.modules.module_call import ModuleCall
from ...torchside.observe.abstract_evaluation import Attempt
from ..effective_terms import mutates_of
from ..flat_function import FlatFunction
from ..pytrees import trees
from ..pytrees.trees import Structure

if TYPE_CHECKING:
    from ...spec.model import CallableSpec


class ContractResults:
    """What a contract says of the results of one function's calls.

    Args:
        function: The torch function.
        spec: Its contract.
        options: What the caller asked for.
        label: Its name and version, for messages.
    """

    def __init__(
        self, function: Callable[..., Any], spec: CallableSpec, options: Options, label: str
    ) -> None:
        self._function = function
        self._spec = spec
        self._options = options
        self._label = label

    def structure(self, flat: FlatFunction, count: int, *, guess: bool) -> Structure | None:
        """How the results are put together.

        Args:
            flat: The function in a way of calling it.
            count: How many arrays the contract gives.
            guess: Take a tuple where nothing tells, rather than None.
        """
        # Here: a program without contracts does without what reads them.
        from .containers import NotToldError, containers_of

        if flat.shown is not None:
            return flat.shown
        behind = len(mutates_of(self._spec, self._options))
        returned = list(self._spec.returned.items())
        try:
            if flat.misread:
                raise NotToldError
            function = self._function
            if isinstance(function, ModuleCall):
                function = function.called
            result = containers_of(function, dict(returned[: len(returned) - behind]))
            structure = flat.structure_around(result)
            if self._order(flat, structure) is not None:
                return structure
        except (NotToldError, SpecMismatchError):  # which runs may show to be right
            pass
        if not guess:
            return None
        if flat.paired:
            return flat.structure_around(0 if count == 1 else tuple(range(count)))
        return _alone_or_tuple(count)

    def _order(self, flat: FlatFunction, structure: Structure) -> list[int] | None:
        """For each output of the contract, which flat result of this structure it is."""
        declared = [path for path, _ in self._spec.output_leaves()]
        paths = own_paths(trees.paths_of(structure), paired=flat.paired)
        counts = counts_behind(self._spec, mutates_of(self._spec, self._options))
        return contract_order(self._label, declared, paths, counts)

    def inference(
        self,
        flat: FlatFunction,
        inputs: Sequence[ArraySig],
        outputs: Sequence[OutputMeta],
        structure: Structure,
        attempts: Sequence[Attempt],
    ) -> Inference:
        """What the contract gives, in the order of the flat results of a structure.

        Args:
            flat: The function in a way of calling it.
            inputs: Its inputs.
            outputs: What the contract gives, in its own order.
            structure: How the results are put together.
            attempts: The ways that failed before.
        """
        order = self._order(flat, structure)
        assert order is not None
        metas = [
            meta for _, meta in sorted(zip(order, outputs, strict=True), key=lambda one: one[0])
        ]
        if isinstance(self._function, ModuleCall) and flat.paired:
            # By name, as JAX has the entries of a dict.
            for _, slot, dtype in sorted(self._function.changed):
                name = str(dtype).removeprefix("torch.")
                metas.append(OutputMeta(inputs[slot].shape, name))
        found = as_declared(tuple(metas), "contract", attempts)
        return replace(found, structure=structure, containers="read")


def as_declared(
    declared: tuple[OutputMeta, ...], how: How, attempts: Sequence[Attempt]
) -> Inference:
    """What was declared and not seen, as one result or a tuple of them."""
    failures = tuple(attempt.words for attempt in attempts)
    return Inference(declared, _alone_or_tuple(len(declared)), how, failures)


def _alone_or_tuple(count: int) -> Structure:
    """Of arrays without containers: one result stands alone, several in a tuple."""
    return trees.flatten(0 if count == 1 else tuple(range(count)))[1]
