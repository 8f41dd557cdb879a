"""From a call to its plan and op: facts from JAX's side, inference on torch's side."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import torch

from .._compat.jax_internals import hold_weakly
from .._compat.jax_symbols import substitute, symbols_in
from ..dotted_names import dotted
from ..errors import DynamicSizeError, MutationError, SpecMismatchError
from ..jaxside import primitives, register_rules
from ..jaxside.ffi_targets import cpu_devices, register_label
from ..planner.array_signature import ArraySig, OutputMeta
from ..planner.build_plan import (
    ArrayArgument,
    CallFacts,
    contract_outputs,
    declared_outputs,
    plan_call,
    plan_inputs,
    version_of,
)
from ..planner.concurrency import choose_concurrency
from ..planner.declared_outputs import check_declared, with_torch_dtypes
from ..planner.nondifferentiable import mark_nondiff
from ..planner.options import Options
from ..planner.output_inference import How, Inference
from ..planner.plan import CallPlan
from ..planner.sharding import Layout, Placement, dimension_names, place_inputs, place_outputs
from ..torchside.build_op import build_op
from ..torchside.closure.closure_state import ClosureState
from ..torchside.closure.function_identity import code_digest
from ..torchside.derive.linear_part import BatchedLinearized, Linearized
from ..torchside.functions.call_locks import call_locks_of
from ..torchside.functions.contract_terms import Terms
from ..torchside.handler.native_module import native
from ..torchside.handler.thread_counts import share_threads
from ..torchside.handler.torch_context import TorchContext
from ..torchside.observe.abstract_evaluation import Attempt, infer_abstractly
from ..torchside.observe.symbolic_evaluation import infer_with_symbols
from ..torchside.observe.symbolic_shapes import infer_with_sizes
from ..torchside.observe.undeclared_randomness import refuse_other_generators, warn_undeclared
from ..torchside.observe.watched_run import Observed
from ..torchside.op.torch_op import Keeper, TorchOp
from ..transfer import t2j
from . import trees
from .arguments import Leaves, describe_arrays, static_values
from .copied_arguments import copied_slots
from .copied_as_needed import tell_of_copies
from .effective_terms import copies_of, mutates_of, terms_of
from .flat_function import FlatFunction
from .mutated_arguments import Mutated
from .random_key import key_sig
from .read_mutates import mutated_arguments
from .trial_runs import Trials

if TYPE_CHECKING:
    from ..spec.enforce import Sizes
    from ..spec.model import CallableSpec

# `register_rules` is imported for what it registers; listed here, it counts as used.
__all__ = ["ConcreteRunNeeded", "Planned", "Planner", "register_rules"]

# These stand among the parameters of equations, by which JAX caches what it has evaluated.
hold_weakly(TorchOp)
hold_weakly(Linearized)
hold_weakly(BatchedLinearized)

T = TypeVar("T")
Shapes = tuple[tuple[tuple[int, ...], str], ...]


class ConcreteRunNeeded(Exception):
    """Planning needs real arguments; an eager call has them."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan, the op that runs it, and what keeps the op's compiled forms.

    Attributes:
        plan: The plan.
        op: What runs it.
        keeper: Of compiled forms.
        of_values: Why it is no plan for other values of the same shapes, if it is none.
    """

    plan: CallPlan
    op: TorchOp
    keeper: Keeper
    of_values: DynamicSizeError | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for `explain`."""
        if self.of_values is None:
            return ()
        return ("sizes follow from values: this plan is of these, and each eager call has its own",)

    def call(self, arrays: Sequence[Any]) -> list[Any]:
        """Flat results for flat arrays or tracers."""
        return primitives.call(self.op, *arrays)

    def rebuild(self, results: Sequence[Any]) -> Any:
        """The function's result from its flat leaves."""
        return rebuild(self.plan, results)


def rebuild(plan: CallPlan, results: Sequence[Any]) -> Any:
    """A function's result from its flat leaves, of which a plan knows the structure."""
    structure = plan.inference.structure
    return results[0] if structure.is_leaf else trees.unflatten(structure, results)


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


class Planner:
    """Plans the calls of one torch function."""

    def __init__(
        self,
        function: Callable[..., Any],
        spec: CallableSpec | None,
        example: Sequence[Any] | None,
        name: str,
        label: str,
        options: Options,
    ) -> None:
        self.function = function
        self.closure = ClosureState(function)
        self._spec = spec
        self.example = None if example is None else tuple(example)
        self._trials = Trials(label, self.example, self.closure)
        self.name = name
        self.options = options
        self.label = label
        # Shared by all plans and ops of the callable, so that each notice comes once.
        self._notices: set[str] = set()
        self._concurrency = options.concurrency or (spec.concurrency if spec else None)

    @property
    def state_key(self) -> Callable[[], Hashable]:
        """What tells whether the function's surroundings are those of an earlier call.

        Where graphs run the calls, also by what takes longer to look at: they would be out of date.
        """
        closure = self.closure
        if terms_of(self._spec, self.options).backend in ("graph", "compile"):
            return lambda: (closure.key(), closure.details())
        return closure.key

    def mutated(self, leaves: Leaves) -> Mutated | None:
        """What a way of calling writes to, as declared.

        Raises:
            ArgumentError: The declaration does not fit the call.
        """
        names = mutates_of(self._spec, self.options)
        return mutated_arguments(self.label, names, self.function, leaves)

    def copied(self, leaves: Leaves) -> tuple[int, ...]:
        """Which arrays of a way of calling the function gets as copies of its own.

        Raises:
            ArgumentError: What was asked for does not fit the call.
        """
        names = copies_of(self._spec, self.options)
        return copied_slots(self.label, names, self.function, leaves)

    def plan(
        self,
        call: Call,
        shapes: Shapes,
        values: Sequence[Any] | None,
        eager: bool,
        *,
        of_values: DynamicSizeError | None = None,
    ) -> Planned:
        """The plan for arrays of these shapes.

        Args:
            call: How the function is called.
            shapes: (shape, JAX dtype) of each array.
            values: The arrays themselves where they are known, to run on if need be.
            eager: Raise `ConcreteRunNeeded` rather than run on anything else.
            of_values: Why sizes of results are known to follow from values, if they are.

        Raises:
            PlanningError: The outputs cannot be found without values.
            DynamicSizeError: Their sizes follow from values.
            ConcreteRunNeeded: As said.
        """
        if of_values is not None and values is None:
            raise of_values.with_traceback(None)
        findings = self._find(call, shapes, values, eager, "values", of_values=of_values)
        return self._planned(findings, self._plan_of(findings))

    def plan_by_running(
        self,
        call: Call,
        shapes: Shapes,
        values: Sequence[Any],
        *,
        of_values: DynamicSizeError | None = None,
    ) -> tuple[Planned | DynamicSizeError, Any]:
        """Plan an eager call by running it.

        Args:
            call: How the function is called.
            shapes: (shape, JAX dtype) of each array.
            values: The arrays.
            of_values: Why sizes of results are known to follow from values, if they are.

        Returns:
            The plan, or why it would hold for these values alone; and the call's result.
        """
        findings = self._find(call, shapes, values, False, "call", of_values=of_values)
        plan = self._plan_of(findings)
        planned = findings.of_values or self._planned(findings, plan)
        if isinstance(planned, Planned) and findings.leaves is None:
            # The outputs were found without a run, so that none has happened yet.
            return planned, planned.rebuild(planned.call([jnp.asarray(v) for v in values]))
        # Clones, since `t2j` shares memory: torch may still write to what it returned.
        results = [
            t2j(leaf.detach().clone()).astype(sig.dtype)
            for leaf, sig in zip(findings.leaves or (), plan.outputs, strict=True)
        ]
        # Torch has one CPU, JAX may have several: results go where the call's arrays are.
        devices = values[0].devices() if values else set()
        if len(devices) == 1:
            results = jax.device_put(results, *devices)
        return planned, rebuild(plan, results)

    def _find(
        self,
        call: Call,
        shapes: Shapes,
        values: Sequence[Any] | None,
        eager: bool,
        whose: How,
        *,
        of_values: DynamicSizeError | None = None,
    ) -> Findings:
        while True:
            try:
                return self._look(call, shapes, values, eager, whose, of_values)
            except MutationError as error:
                copied = call.leaves.copied
                fresh = [slot for slot in error.written if slot not in copied]
                if self.options.declared.told_of_copies is None or not fresh:
                    raise
            arrays = self._facts(call, shapes).arrays
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
        return replace(call, leaves=leaves, function=FlatFunction(self.function, leaves))

    def _tell_of_copies(self, paths: Sequence[str]) -> None:
        told = self.options.declared.told_of_copies
        assert told is not None
        tell_of_copies(self.label, paths, told)

    def _look(
        self,
        call: Call,
        shapes: Shapes,
        values: Sequence[Any] | None,
        eager: bool,
        whose: How,
        of_values: DynamicSizeError | None,
    ) -> Findings:
        # Programs that were exported call the function by this name, here too from now on.
        register_label(native(), f"{self.name}@{version_of(self._spec)}")
        share_threads(cpu_devices())
        facts = self._facts(call, shapes)
        # What torch is to see of each array: by the contract, then by what the caller declared.
        with self._told_for_all_sizes():
            inputs, sizes = plan_inputs(self._spec, facts)
        inputs = mark_nondiff(self.label, inputs, self.options.nondiff)
        options = self.options.declared
        inputs = with_torch_dtypes(inputs, options.torch_dtypes, x64=facts.x64)
        device = self._device(values)
        observed = Observed(untraced=True)
        attempts: list[Attempt] = []
        inference, leaves = None, None
        evaluated = (call.function, inputs, device, self.label, self.closure)
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
                # From the cheapest on: declared, symbols, a run on the call's values, a run that
                # nobody asked for.
                by_contract = contract_outputs(self._spec, sizes)
                if by_contract is not None:
                    inference = self._as_declared(by_contract, "contract", attempts)
                elif options.outputs is not None:
                    inference = self._as_declared(options.outputs, "declared", attempts)
                elif of_values is None:
                    try:
                        inference = infer_with_symbols(*evaluated, attempts, template)
                    except DynamicSizeError as error:
                        if values is not None or eager:
                            of_values = error.with_traceback(None)
                        # The user's own word for the sizes, which calls are checked against.
                        elif not self._trials.has_example(inputs):
                            raise
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
        if options.outputs is not None:
            check_declared(self.label, options.outputs, inference.outputs, x64=facts.x64)
        if facts.random_key is not None:
            refuse_other_generators(self.label, observed)
        elif observed.impure_draws or (not inference.traced and inference.random):
            warn_undeclared(self.label, self._notices, of_module=self.closure.secluded)
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
                self.label,
                self.closure,
                variables,
                substitute,
                call.leaves.template,
            )
        except DynamicSizeError as error:
            by_contract = contract_outputs(self._spec, sizes)
            if by_contract is None:
                raise
            attempts = [Attempt("fake", error)]
            return self._as_declared(by_contract, "contract", attempts), Observed(untraced=True)

    def _plan_of(self, findings: Findings) -> CallPlan:
        """The plan, which checks outputs against the contract.

        Raises:
            SpecMismatchError: They do not fit it.
        """
        inference = findings.inference
        terms = terms_of(self._spec, self.options)
        with self._told_for_all_sizes():
            return plan_call(
                self._spec,
                findings.facts,
                findings.inputs,
                findings.sizes,
                inference,
                _output_paths(inference),
                terms.vmap_method,
                choose_concurrency(self._concurrency, inference, self.closure.words()),
            )

    @contextlib.contextmanager
    def _told_for_all_sizes(self) -> Iterator[None]:
        """A contract's words about sizes are compared with symbolic ones.

        Raises:
            SpecMismatchError: Not for all sizes alike.
        """
        try:
            yield
        except jax.errors.InconclusiveDimensionOperation as error:
            first = str(error).splitlines()[0]
            raise SpecMismatchError(
                f"{self.label}: expected symbolic sizes that the contract can be held against; got "
                f"one for which that depends on the size: {first} Say more of it, as in "
                "jax.export.symbolic_shape('b, 3', constraints=['b <= 10']).",
                callable_name=self.label,
                argument="",
            ) from None

    def _planned(self, findings: Findings, plan: CallPlan) -> Planned:
        call, inference, observed = findings.call, findings.inference, findings.observed
        with self.closure.locks:  # modules keep their own attributes meanwhile
            code, stateful = code_digest(
                self.function, *call.leaves.template, state=observed.updated
            )
        plan = replace(plan, code=code)
        terms = terms_of(self._spec, self.options)
        # What was not seen to run may draw.
        call_locks = call_locks_of(
            self.closure,
            observed,
            exclusive=plan.concurrency.mode == "locked",
            draws=inference.random or not inference.traced,
            owner=self.function,
            lock=self.options.declared.lock,
        )
        # Held by `Planned` and not by the op, which compiled forms refer to.
        keeper = Keeper()
        op = build_op(
            plan,
            call.function,
            call.function.runner(inference.structure, self.label),
            observed,
            self.closure,
            call.context,
            findings.device,
            findings.facts.x64,
            keeper=keeper,
            stateful=stateful,
            terms=terms,
            notices=self._notices,
            call_locks=call_locks,
            generators=observed.generators,
            mutated=call.function.mutated,
            writing=call.function.writing if call.function.mutated else None,
            run_out=_out_runner(call.function, inference, terms, self.label),
            compiled=call.function.compiled() if terms.backend == "compile" else None,
        )
        return Planned(plan, op, keeper, findings.of_values)

    def dimension_names(self, call: Call, shapes: Shapes) -> tuple[tuple[str | None, ...], ...]:
        """For each array of a call, what the contract calls each dimension, or None."""
        arrays, _ = describe_arrays(self.function, call.leaves, call.of_arrays(shapes))
        return dimension_names(self._spec, arrays)

    def place(
        self, call: Call, shapes: Shapes, layouts: Sequence[Layout], mesh: Mapping[str, int]
    ) -> Placement | None:
        """How a call on sharded arrays is cut into shards; None if all are whole.

        Raises:
            ShardingError: They are sharded in another way than the contract says.
        """
        facts = self._facts(call, shapes)
        plan_inputs(self._spec, facts)  # the contract is about whole arrays first
        layouts = call.of_arrays(layouts)
        return place_inputs(self.label, self._spec, facts.arrays, layouts, mesh)

    def place_outputs(
        self, placement: Placement, plan: CallPlan
    ) -> tuple[tuple[str | None, ...], ...]:
        """Of each flat result, the mesh axis of each dimension or None.

        Raises:
            ShardingError: Nothing says how to put the shards together.
        """
        assert self._spec is not None
        leaves = declared_outputs(self._spec, _output_paths(plan.inference))
        assert leaves is not None  # planning has compared the counts
        ranks = [len(sig.shape) for sig in plan.outputs]
        return place_outputs(self.label, self._spec, placement, leaves, ranks)

    def _facts(self, call: Call, shapes: Shapes) -> CallFacts:
        arrays, static = describe_arrays(self.function, call.leaves, call.of_arrays(shapes))
        copies = copies_of(self._spec, self.options)
        if self.options.declared.told_of_copies is not None:
            copies = tuple(dotted(arrays[slot].path) for slot in call.leaves.copied)
        return CallFacts(
            self.name,
            "",  # known once the function has run: it may import what it calls
            arrays,
            static,
            call.context.texts(),
            x64_enabled(),
            {} if self._spec is None else static_values(self.function, call.leaves),
            key_sig(shapes[-1][0]) if call.leaves.keyed else None,
            mutates_of(self._spec, self.options),
            copies,
        )

    def _device(self, values: Sequence[Any] | None) -> str:
        """Where to evaluate abstractly: by the module's parameters, the arrays, the backend."""
        for module in self.closure.modules:
            for parameter in module.parameters():
                return parameter.device.type
        for value in values or ():
            if isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer):
                return _torch_device(next(iter(value.devices())).platform)
        return _torch_device(jax.default_backend())

    @staticmethod
    def _as_declared(
        declared: tuple[OutputMeta, ...], how: How, attempts: Sequence[Attempt]
    ) -> Inference:
        count = len(declared)
        # Only arrays are declared, no containers: one result stands alone, several in a tuple.
        shape_of_result = 0 if count == 1 else tuple(range(count))
        _, structure = trees.flatten(shape_of_result)
        failures = tuple(attempt.words for attempt in attempts)
        return Inference(declared, structure, how, failures)


def _out_runner(
    function: FlatFunction, inference: Inference, terms: Terms, label: str
) -> Callable[..., Any] | None:
    """For functions that take ``out=``, where the contract asks for results in place."""
    if terms.outputs != "in_place" or not inference.outputs or not function.takes_out:
        return None
    return function.out_runner(inference.structure, label)


def _output_paths(inference: Inference) -> list[tuple[str | int, ...]]:
    numbered = trees.unflatten(inference.structure, list(range(len(inference.outputs))))
    return [path for path, _ in trees.flatten_with_paths(numbered)]


def x64_enabled() -> bool:
    """Whether JAX holds 64-bit dtypes here and now."""
    return bool(jax.dtypes.canonicalize_dtype(np.int64) == np.int64)


def _torch_device(platform: str) -> str:
    return "cuda" if platform in ("gpu", "cuda") else "cpu"
