"""From a call to its plan and op: facts from JAX's side, inference on torch's side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from .._compat.jax.process import hold_weakly
from ..choices import GRAPH_BACKENDS
from ..errors import DynamicSizeError
from ..jaxside import explicit_axes, register_rules
from ..jaxside.inlined.coverage import refuse_islands
from ..planner.build_plan import (
    declared_outputs,
    plan_call,
    plan_inputs,
)
from ..planner.concurrency import choose_concurrency
from ..planner.options import Options
from ..planner.output_inference import Inference
from ..planner.plan import CallPlan
from ..planner.sharding import Layout, Placement, dimension_names, place_inputs, place_outputs
from ..torchside.build_op import build_op
from ..torchside.closure.closure_state import ClosureState
from ..torchside.closure.function_identity import code_digest
from ..torchside.derive.linear_part import BatchedLinearized, Linearized
from ..torchside.functions.call_locks import call_locks_of
from ..torchside.functions.contract_terms import Terms
from ..torchside.modules.module_call import Mode, ModuleCall
from ..torchside.observe.symbolic_evaluation import refused_by_xla
from ..torchside.op.torch_op import Keeper, TorchOp
from ..transfer import t2j
from .arguments.copied_arguments import copied_slots
from .arguments.mutated_arguments import Mutated
from .arguments.read_mutates import mutated_arguments
from .arguments.sort_leaves import Leaves, describe_arrays
from .call_form import form_of
from .effective_terms import copies_of, mutates_of, terms_of
from .flat_function import FlatFunction
from .outputs.bounded_results import BoundedResults, bounded_results
from .outputs.find_outputs import Call, Findings, OutputFinder, Shapes, told_for_all_sizes
from .pytrees import trees
from .recipe.recipe import recipe_text

if TYPE_CHECKING:
    from ..spec.model import CallableSpec

# `register_rules` is imported for what it registers; listed here, it counts as used.
__all__ = ["Planned", "Planner", "register_rules"]

# These stand among the parameters of equations, by which JAX caches what it has evaluated.
hold_weakly(TorchOp)
hold_weakly(Linearized)
hold_weakly(BatchedLinearized)


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan, the op that runs it, and what keeps the op's compiled programs.

    Attributes:
        plan: The plan.
        op: What runs it.
        keeper: Of compiled programs.
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
        return explicit_axes.call(self.op, arrays)

    def rebuild(self, results: Sequence[Any]) -> Any:
        """The function's result from its flat leaves."""
        return rebuild(self.plan, results)


def rebuild(plan: CallPlan, results: Sequence[Any]) -> Any:
    """A function's result from its flat leaves, of which a plan knows the structure."""
    structure = plan.inference.structure
    return results[0] if structure.is_leaf else trees.unflatten(structure, results)


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
        self.name = name
        self.options = options
        self.label = label
        # Shared by all plans and ops of the callable, so that each notice comes once.
        self._notices: set[str] = set()
        self._finder = OutputFinder(
            *(function, spec, self.example, name, label, options),
            *(self.closure, self._notices),
        )
        self._concurrency = options.concurrency or (spec.concurrency if spec else None)

    @property
    def state_key(self) -> Callable[[], Hashable]:
        """What tells whether the function's surroundings are those of an earlier call.

        Where graphs run the calls, also by what takes longer to look at: they would be out of date.
        """
        closure = self.closure
        if terms_of(self._spec, self.options).backend in GRAPH_BACKENDS:
            return lambda: (closure.key(), closure.details(), closure.held_number())
        return closure.key

    def changed_around(self, before: Any, after: Any) -> list[str]:
        """The names whose values differ between two results of `state_key`."""
        if terms_of(self._spec, self.options).backend in GRAPH_BACKENDS:
            before, after = before[0], after[0]
        return self.closure.changed(before, after)

    @property
    def _for_xla(self) -> bool:
        return terms_of(self._spec, self.options).backend == "xla"

    @property
    def mode(self) -> Mode | None:
        """In which way a module of `from_module` is called; None for any other function."""
        return self.function.mode if isinstance(self.function, ModuleCall) else None

    def mutated(self, leaves: Leaves) -> Mutated | None:
        """What a way of calling writes to, as declared.

        Raises:
            ArgumentError: The declaration does not fit the call.
        """
        names = mutates_of(self._spec, self.options)
        return mutated_arguments(self.label, names, self.function, leaves)

    def bounded(self, leaves: Leaves) -> BoundedResults | None:
        """What pads the results of a way of calling; None if its contract gives no bounds."""
        return bounded_results(self._spec, self.function, leaves)

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
        guess: bool = False,
    ) -> Planned:
        """The plan for arrays of these shapes.

        Args:
            call: How the function is called.
            shapes: (shape, JAX dtype) of each array.
            values: The arrays themselves where they are known, to run on if need be.
            eager: Raise `ConcreteRunNeeded` rather than run on anything else.
            of_values: Why sizes of results are known to follow from values, if they are.
            guess: Take a contract's outputs as a tuple, rather than run the function, where
                nothing else tells how it puts them together.

        Raises:
            PlanningError: The outputs cannot be found without values.
            DynamicSizeError: Their sizes follow from values.
            ConcreteRunNeeded: As said.
        """
        if of_values is not None and values is None:
            raise of_values.with_traceback(None)
        try:
            findings = self._finder.find(
                *(call, shapes, values, eager, "values"), of_values=of_values, guess=guess
            )
        except DynamicSizeError as error:
            if self._for_xla:
                raise refused_by_xla(error) from None
            raise
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
        findings = self._finder.find(call, shapes, values, False, "call", of_values=of_values)
        if findings.of_values is not None and self._for_xla:
            # The call has run by torch, and its result is not what was asked for.
            raise refused_by_xla(findings.of_values)
        plan = self._plan_of(findings)
        planned = findings.of_values or self._planned(findings, plan)
        if isinstance(planned, Planned) and findings.leaves is None:
            # The outputs were found without a run, so that none has happened yet.
            if not planned.op.outputs:
                return planned, self.call_without_results(call, planned, values)
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

    def call_without_results(self, call: Call, planned: Planned, values: Sequence[Any]) -> Any:
        """Make a call that gives no arrays, which no program of XLA's would make.

        Raises:
            TorchExecutionError: The function failed.
        """
        self._finder.run(call, planned.op.program.inputs, values)
        return planned.rebuild(())

    def _plan_of(self, findings: Findings) -> CallPlan:
        """The plan, which checks outputs against the contract.

        Raises:
            SpecMismatchError: They do not fit it.
        """
        inference = findings.inference
        terms = terms_of(self._spec, self.options)
        with told_for_all_sizes(self.label):
            return plan_call(
                self._spec,
                findings.facts,
                findings.inputs,
                findings.sizes,
                inference,
                trees.paths_of(inference.structure),
                terms.vmap_method,
                choose_concurrency(self._concurrency, inference, self.closure.words()),
                terms.backend,
                paired=findings.call.function.paired,
            )

    def _planned(self, findings: Findings, plan: CallPlan) -> Planned:
        call, inference, observed = findings.call, findings.inference, findings.observed
        function = call.function.expecting(
            inference.structure, self.label, shown=inference.containers != "read"
        )
        form, contents = form_of(call.leaves.structure, self.mode)
        with self.closure.locks:  # modules keep their own attributes meanwhile
            code, stateful = code_digest(
                self.function, *call.leaves.template, *contents, state=observed.updated
            )
        plan = replace(plan, code=code, form=form)
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
        # Held by `Planned` and not by the op, which compiled programs refer to.
        keeper = Keeper()
        op = build_op(
            plan,
            function,
            function.runner(
                inference.structure,
                self.label,
                seen=inference.traced or inference.how == "declared",
            ),
            observed,
            self.closure,
            call.context,
            findings.device,
            findings.facts.x64,
            keeper=keeper,
            recipe=functools.partial(
                recipe_text, call.leaves, call.context, findings.facts.x64, plan, self.mode
            ),
            stateful=stateful,
            terms=terms,
            notices=self._notices,
            call_locks=call_locks,
            generators=observed.generators,
            mutated=function.mutated,
            writing=function.writing if function.mutated else None,
            run_out=_out_runner(function, inference, terms, self.label),
            compiled=function.compiled() if terms.backend == "compile" else None,
        )
        if op.aten is not None and op.no_islands:
            refuse_islands(op, op.no_islands)
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
        if self._for_xla and not (self._spec and self._spec.sharding):
            return None  # XLA cuts the operations
        facts = self._finder.facts(call, shapes)
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
        paths = trees.paths_of(plan.inference.structure)
        leaves = declared_outputs(self._spec, paths, plan.mutates)
        assert leaves is not None  # planning has compared the counts
        ranks = [len(sig.shape) for sig in plan.outputs]
        return place_outputs(self.label, self._spec, placement, leaves, ranks)


def _out_runner(
    function: FlatFunction, inference: Inference, terms: Terms, label: str
) -> Callable[..., Any] | None:
    """For functions that take ``out=``, where the contract asks for results in place."""
    if terms.outputs != "in_place" or not inference.outputs or not function.takes_out:
        return None
    return function.out_runner(inference.structure, label)
