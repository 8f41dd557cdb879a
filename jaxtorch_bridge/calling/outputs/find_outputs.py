"""What a call gives, found without running it where that can be, and what is seen on the way."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
import torch

from ..._compat.jax.symbolic_shapes import allows, constraints_of, substitute, symbols_in
from ...dotted_names import dotted
from ...errors import DynamicSizeError, MutationError, SpecMismatchError
from ...jaxside.ffi_targets import cpu_devices, register_label
from ...planner.array_signature import ArraySig
from ...planner.build_plan import (
    ArrayArgument,
    CallFacts,
    contract_outputs,
    plan_inputs,
    version_of,
)
from ...planner.declared_outputs import check_declared, with_torch_dtypes
from ...planner.nondifferentiable import mark_nondiff
from ...planner.options import Options
from ...planner.output_inference import How, Inference
from ...torchside.closure.closure_state import ClosureState
from ...torchside.handler.native_module import native
from ...torchside.handler.thread_counts import share_threads
from ...torchside.handler.torch_context import TorchContext
from ...torchside.modules.recorded_calls import unrecorded
from ...torchside.observe.abstract_evaluation import Attempt, infer_abstractly
from ...torchside.observe.symbolic_evaluation import infer_with_symbols
from ...torchside.observe.symbolic_shapes import infer_with_sizes
from ...torchside.observe.undeclared_randomness import refuse_other_generators, warn_undeclared
from ...torchside.observe.watched_run import Observed
from ..arguments.copied_as_needed import tell_of_copies
from ..arguments.random_key import key_sig
from ..arguments.sort_leaves import Leaves, describe_arrays, static_values
from ..effective_terms import copies_of, mutates_of, terms_of
from ..flat_function import FlatFunction
from .contract_results import ContractResults, as_declared
from .trial_runs import Trials

if TYPE_CHECKING:
    from ...spec.language.sizes import Sizes
    from ...spec.model import CallableSpec

T = TypeVar("T")
Shapes = tuple[tuple[tuple[int, ...], str], ...]


class ConcreteRunNeeded(Exception):
    """Planning needs real arguments; an eager call has them."""


@dataclass(frozen=True, eq=False)
class Call:
    """One way of calling a function, for planning.

    Attributes:
        function: The torch function over flat tensors.
        leaves: Structure and static values.
        context: Torch's settings of the caller.
    """

    function: FlatFunction
    leaves: Leaves
    context: TorchContext

    def of_arrays(self, items: Sequence[T]) -> Sequence[T]:
        """What belongs to the arrays, of one item for each operand: without the random key."""
        return items[:-1] if self.leaves.keyed else items


@dataclass(frozen=True, eq=False)
class Findings:
    """What is known of a call before there is an op for it.

    Attributes:
        call: How the function is called; with copies of what it was seen to write to, where that is
            done by itself.
        facts: From JAX's side.
        inputs: What torch is to see of each array.
        sizes: What the contract binds.
        device: Where torch evaluates.
        inference: The outputs.
        observed: What was seen while they were found.
        leaves: The flat results, if the call was run.
        of_values: Why it would be no plan for other values, if sizes of results follow from them.
    """

    call: Call
    facts: CallFacts
    inputs: tuple[ArraySig, ...]
    sizes: Sizes | None
    device: str
    inference: Inference
    observed: Observed
    leaves: list[torch.Tensor] | None
    of_values: DynamicSizeError | None


class OutputFinder:
    """Finds the outputs of one torch function's calls.

    Args:
        function: The torch function.
        spec: Its contract.
        example: Arguments to run on where a call's own are not known.
        name: Its name.
        label: Its name and version, for messages.
        options: What the caller asked for.
        closure: What it closes over.
        notices: Those that its user has had.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        spec: CallableSpec | None,
        example: tuple[Any, ...] | None,
        name: str,
        label: str,
        options: Options,
        closure: ClosureState,
        notices: set[str],
    ) -> None:
        self._function = function
        self._spec = spec
        self._name = name
        self._label = label
        self._options = options
        self._closure = closure
        self._notices = notices
        self._trials = Trials(label, example, closure)
        self._contract = None if spec is None else ContractResults(function, spec, options, label)
        self._for_xla = terms_of(spec, options).backend == "xla"

    def run(self, call: Call, inputs: tuple[ArraySig, ...], values: Sequence[Any]) -> None:
        """Make a call that gives no results, which no program of XLA's would make.

        Raises:
            TorchExecutionError: The function failed.
        """
        key = values[-1] if len(values) > len(inputs) else None
        self._trials.run(call.function, inputs, values[: len(inputs)], "call", (), key)

    def find(
        self,
        call: Call,
        shapes: Shapes,
        values: Sequence[Any] | None,
        eager: bool,
        whose: How,
        *,
        of_values: DynamicSizeError | None = None,
        guess: bool = False,
    ) -> Findings:
        """Find what a call gives, and see what it does on the way.

        Args:
            call: How the function is called.
            shapes: (shape, JAX dtype) of each array.
            values: The arrays themselves where they are known, to run on if need be.
            eager: Raise `ConcreteRunNeeded` rather than run on anything else.
            whose: What a run on these values is called.
            of_values: Why sizes of results are known to follow from values, if they are.
            guess: Take a contract's outputs as a tuple, rather than run the function, where
                nothing else tells how it puts them together.

        Raises:
            PlanningError: The outputs cannot be found without values.
            DynamicSizeError: Their sizes follow from values.
            ConcreteRunNeeded: As said.
        """
        while True:
            try:
                with unrecorded():
                    return self._look(call, shapes, values, eager, whose, of_values, guess)
            except MutationError as error:
                copied = call.leaves.copied
                fresh = [slot for slot in error.written if slot not in copied]
                if self._options.declared.told_of_copies is None or not fresh:
                    raise
            arrays = self.facts(call, shapes).arrays
            self._tell_of_copies([arrays[slot].path for slot in fresh])
            call = self._with_copies(call, sorted({*copied, *fresh}), arrays)

    def _with_copies(
        self,
        call: Call,
        slots: Sequence[int],
        arrays: Sequence[ArrayArgument],
        *,
        tell: bool = False,
    ) -> Call:
        """The same call, in which the function gets copies of these arrays."""

        def told(written: Sequence[int]) -> None:
            self._tell_of_copies([arrays[slot].path for slot in written])

        leaves = replace(call.leaves, copied=tuple(slots), tell=told if tell else None)
        return replace(call, leaves=leaves, function=FlatFunction(self._function, leaves))

    def _tell_of_copies(self, paths: Sequence[str]) -> None:
        told = self._options.declared.told_of_copies
        assert told is not None
        tell_of_copies(self._label, paths, told)

    def _look(
        self,
        call: Call,
        shapes: Shapes,
        values: Sequence[Any] | None,
        eager: bool,
        whose: How,
        of_values: DynamicSizeError | None,
        guess: bool,
    ) -> Findings:
        # Programs that were exported call the function by this name, here too from now on.
        register_label(native(), f"{self._name}@{version_of(self._spec)}")
        share_threads(cpu_devices())
        facts = self.facts(call, shapes)
        # What torch is to see of each array: by the contract, then by what the caller declared.
        with told_for_all_sizes(self._label):
            inputs, sizes = plan_inputs(self._spec, facts)
        inputs = mark_nondiff(self._label, inputs, self._options.nondiff)
        options = self._options.declared
        inputs = with_torch_dtypes(inputs, options.torch_dtypes, x64=facts.x64)
        device = self._device(values)
        observed = Observed(untraced=True)
        attempts: list[Attempt] = []
        inference, leaves, by_contract = None, None, None
        evaluated = (call.function, inputs, device, self._label, self._closure)
        template = call.leaves.template
        # Planning may happen on another thread than the call, and torch's modes are the thread's.
        variables = symbols_in([shape for shape, _ in shapes])
        with call.context.scope():
            if variables:
                inference, observed = self._for_all_sizes(call, inputs, device, variables, sizes)
            elif of_values is None:
                inference, observed, attempts = infer_abstractly(*evaluated, template)
            if options.told_of_copies is not None and (inference is None or not inference.seen):
                # Any call may write to any of them.
                every = range(len(inputs))
                call = self._with_copies(call, every, facts.arrays, tell=True)
                evaluated = (call.function, *evaluated[1:])
                facts = replace(facts, copies=tuple(dotted(one.path) for one in facts.arrays))
            if inference is None:
                # Symbols, which tell the containers of results too; what was declared; a run on the
                # call's values; a run that nobody asked for.
                dynamic = of_values
                if dynamic is None:
                    try:
                        inference = infer_with_symbols(*evaluated, attempts, template)
                        if inference is not None and self._for_xla:
                            # Its graphs are captured likewise.
                            inference = replace(inference, how="fake-with-symbols")
                    except DynamicSizeError as error:
                        dynamic = error.with_traceback(None)
                if inference is None:
                    by_contract = contract_outputs(self._spec, sizes)
                    if by_contract is not None:
                        assert self._contract is not None
                        runs = values is not None or eager or self._trials.has_example(inputs)
                        structure = call.function.shown
                        # Of a module that returns buffers a run shows which ones it changes.
                        if structure is None and not call.function.paired:
                            structure = self._contract.structure(
                                call.function, len(by_contract), guess=guess or not runs
                            )
                        if structure is not None:
                            inference = self._contract.inference(
                                call.function, inputs, by_contract, structure, attempts
                            )
                    elif options.outputs is not None:
                        inference = as_declared(options.outputs, "declared", attempts)
                    elif values is not None or eager:
                        of_values = dynamic
                    # An example is the user's own word for the sizes, which calls are checked
                    # against.
                    elif dynamic is not None and not self._trials.has_example(inputs):
                        raise dynamic
        if inference is None:
            if values is not None:
                # The words of a random key stand behind the arrays.
                known = values[: len(inputs)]
                key = values[-1] if facts.random_key else None
                inference, leaves = self._trials.run(
                    call.function, inputs, known, whose, attempts, key
                )
            elif eager:
                raise ConcreteRunNeeded
            else:
                inference = self._trials.extra_run(
                    call.function, inputs, attempts, keyed=facts.random_key is not None
                )
            if by_contract is not None:
                call.function.shown = inference.structure
                inference = replace(
                    as_declared(inference.outputs, "contract", attempts),
                    structure=inference.structure,
                    containers=inference.how,
                )
        if options.outputs is not None:
            check_declared(self._label, options.outputs, inference.outputs, x64=facts.x64)
        if facts.random_key is not None:
            refuse_other_generators(self._label, observed)
        elif observed.impure_draws or (not inference.traced and inference.random):
            warn_undeclared(self._label, self._notices, of_module=self._closure.secluded)
        of_values = None if leaves is None else of_values
        return Findings(call, facts, inputs, sizes, device, inference, observed, leaves, of_values)

    def _for_all_sizes(
        self,
        call: Call,
        inputs: tuple[ArraySig, ...],
        device: str,
        variables: Mapping[str, Any],
        sizes: Sizes | None,
    ) -> tuple[Inference, Observed]:
        """The outputs of a call with symbolic sizes: evaluated, or the contract's formulas."""
        try:
            return infer_with_sizes(
                call.function,
                inputs,
                device,
                self._label,
                self._closure,
                variables,
                substitute,
                functools.partial(allows, constraints_of([sig.shape for sig in inputs])),
                call.leaves.template,
            )
        except DynamicSizeError as error:
            by_contract = contract_outputs(self._spec, sizes)
            if by_contract is None:
                raise
            assert self._contract is not None
            structure = self._contract.structure(call.function, len(by_contract), guess=True)
            assert structure is not None  # it is guessed
            found = self._contract.inference(
                call.function, inputs, by_contract, structure, [Attempt("fake", error)]
            )
            return found, Observed(untraced=True)

    def facts(self, call: Call, shapes: Shapes) -> CallFacts:
        """What is known of a call on JAX's side."""
        arrays, static = describe_arrays(self._function, call.leaves, call.of_arrays(shapes))
        copies = copies_of(self._spec, self._options)
        if self._options.declared.told_of_copies is not None:
            copies = tuple(dotted(arrays[slot].path) for slot in call.leaves.copied)
        return CallFacts(
            self._name,
            "",  # known once the function has run: it may import what it calls
            arrays,
            static,
            call.context.texts(),
            x64_enabled(),
            {} if self._spec is None else static_values(self._function, call.leaves),
            key_sig(shapes[-1][0]) if call.leaves.keyed else None,
            mutates_of(self._spec, self._options),
            copies,
        )

    def _device(self, values: Sequence[Any] | None) -> str:
        """Where to evaluate abstractly: by the module's parameters, the arrays, the backend."""
        for module in self._closure.modules:
            for parameter in module.parameters():
                return parameter.device.type
        for value in values or ():
            if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
                return _torch_device(next(iter(value.devices())).platform)
        return _torch_device(jax.default_backend())


@contextlib.contextmanager
def told_for_all_sizes(label: str) -> Iterator[None]:
    """A contract's words about sizes are compared with symbolic ones.

    Raises:
        SpecMismatchError: Not for all sizes alike.
    """
    try:
        yield
    except jax.errors.InconclusiveDimensionOperation as error:
        first = str(error).splitlines()[0]
        raise SpecMismatchError(
            f"{label}: expected symbolic sizes that the contract can be held against; got "
            f"one for which that depends on the size: {first} Say more of it, as in "
            "jax.export.symbolic_shape('b, 3', constraints=['b <= 10']).",
            callable_name=label,
            argument="",
        ) from None


def x64_enabled() -> bool:
    """Whether JAX holds 64-bit dtypes here and now."""
    return bool(jax.dtypes.canonicalize_dtype(np.int64) == np.int64)


def _torch_device(platform: str) -> str:
    return "cuda" if platform in ("gpu", "cuda") else "cpu"
