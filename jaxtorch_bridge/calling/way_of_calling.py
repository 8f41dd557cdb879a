"""One way of calling a function: fixed structure and static values, any shapes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from .._compat.jax.arrays import ArrayImpl, concrete_value, wait_for
from ..call_site import caller_level
from ..errors import BridgeWarning, DynamicSizeError, OutputError, SpecMismatchError
from ..jaxside.eager_calls import finished
from ..jaxside.sharded_arrays import call_per_shard, layouts_of, mesh_axes_of
from ..planner.sharding import Placement, is_whole, refuse_random_shards
from ..torchside.handler import failure_messages
from ..torchside.handler.torch_context import current_context
from ..torchside.observe.symbolic_evaluation import other_sizes
from .arguments.random_key import key_data
from .arguments.sort_leaves import Leaves, named_leaves
from .call_planner import Planned, Planner
from .flat_function import FlatFunction
from .outputs.find_outputs import Call, ConcreteRunNeeded, Shapes, x64_enabled
from .planning_lock import PlanningLock
from .pytrees import trees


class WayOfCalling:
    """Plans and compiled programs for one structure of arguments and set of static values."""

    def __init__(self, planner: Planner, leaves: Leaves) -> None:
        # Only the form of the call is kept, not the arrays of whoever came first.
        form = replace(leaves, arrays=[], tensors=0, traced=False)
        form = replace(form, mutated=planner.mutated(form), copied=planner.copied(form))
        form = replace(form, bounded=planner.bounded(form))
        self._planner = planner
        # Whoever came first, its context is that of every call: ways are looked up by it.
        self._call = Call(FlatFunction(planner.function, form), form, current_context())
        self._plans: dict[Any, Planned] = {}
        # Whether there was a call since somebody looked.
        self.used = True
        # Shapes of which each call has results of its own sizes.
        self._of_values: dict[Any, DynamicSizeError] = {}
        # Shapes of which a call gives no arrays. It has to be made here: JAX drops calls without
        # results from programs. Of some the next one may give arrays.
        self._without_results: set[Any] = set()
        # Held while planning, so that a function is planned once.
        self._lock = PlanningLock()
        self._jitted = jax.jit(self._results)
        # On a GPU JAX runs a call on the caller's own thread anyway, and the stream orders it.
        self._waits = jax.default_backend() == "cpu"

    def run(self, arrays: Sequence[Any]) -> Any:
        """An eager call.

        Raises:
            TorchExecutionError: With the original exception as its cause.
        """
        self.used = True
        if self._waits:
            # An eager call is run here and now: XLA would run it later, on another thread, if
            # its arguments were still being computed, and its failure would come without cause.
            for array in arrays:
                if type(array) is ArrayImpl:
                    wait_for(array)
                elif isinstance(array, jax.Array):  # a typed random key
                    array.block_until_ready()
        if self._of_values and self._key(arrays) in self._of_values:
            return self._run_for_real(arrays)
        if self._without_results and self._key(arrays) in self._without_results:
            return self._run_without_results(arrays)
        try:
            results = finished(self._jitted, arrays, failure_messages.Watch)
        except ConcreteRunNeeded:
            return self._run_without_results(arrays)
        except OutputError as error:
            return self._run_again(arrays, error)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            # JAX 0.10 raises a failed call of a known executable as a plain ValueError.
            failure = failure_messages.translated(error)
            if failure is None:
                raise
            if isinstance(failure, OutputError):
                return self._run_again(arrays, failure)
            raise failure from failure.__cause__
        return results.rebuild() if type(results) is Boxed else results

    def trace(self, arrays: Sequence[Any]) -> Any:
        """A call under a JAX transformation."""
        self.used = True
        arrays = [_as_jax(array) for array in self.operands(arrays)]
        placement = self.placement(arrays)
        if placement is not None:
            planned, results = self._per_shard(arrays, placement)
            return planned.rebuild(results)
        planned = self.planned(arrays)
        self._tell_if_dropped(planned)
        return planned.rebuild(planned.call(arrays))

    def _tell_if_dropped(self, planned: Planned) -> None:
        if planned.op.outputs:
            return
        warnings.warn(
            f"{self._planner.label}: it returns no arrays, and JAX drops calls without results "
            "from programs, so that it does not run there. Return an array that somebody uses, "
            "such as its argument, or call it outside of JAX's transformations.",
            BridgeWarning,
            stacklevel=caller_level(),
        )

    def paths(self) -> list[tuple[str | int, ...]]:
        """The path of each leaf of a call, from the name of its parameter on."""
        return named_leaves(self._planner.function, self._call.leaves)

    def dimension_names(self, arrays: Sequence[Any]) -> tuple[tuple[str | None, ...], ...]:
        """For each array, what the contract calls each dimension, or None."""
        return self._planner.dimension_names(self._call, _shapes(self.operands(arrays)))

    def operands(self, arrays: Sequence[Any]) -> Sequence[Any]:
        """What the op takes: the words of a random key in place of the key.

        Raises:
            ArgumentError: What was passed as a key is none.
        """
        if not self._call.leaves.keyed:
            return arrays
        return [*arrays[:-1], key_data(self._planner.label, arrays[-1])]

    def placement(self, arrays: Sequence[Any]) -> Placement | None:
        """How a call is cut into shards; None if every array is whole.

        Raises:
            ShardingError: Arrays are sharded in another way than the contract says.
        """
        layouts = layouts_of(arrays)
        if all(is_whole(layout) for layout in layouts):
            return None
        mesh = mesh_axes_of(arrays)
        return self._planner.place(self._call, _shapes(arrays), layouts, mesh)

    def planned_for_shard(self, arrays: Sequence[Any], placement: Placement) -> Planned:
        """The plan for what one shard gets.

        Raises:
            SpecMismatchError: A constraint holds for whole arrays, but not for shards: torch sees
                no more than these.
            ShardingError: Shards would draw from one random key.
        """
        whole = _shapes(arrays)
        shapes = tuple(
            (shape, dtype)
            for shape, (_, dtype) in zip(placement.shapes, self._call.of_arrays(whole), strict=True)
        )
        if self._call.leaves.keyed:
            shapes = (*shapes, whole[-1])
        try:
            planned = self._planned_for(shapes, None)
        except SpecMismatchError as error:
            words = f"{error} These are the sizes of one shard: {'; '.join(placement.words)}."
            raise SpecMismatchError(
                words,
                callable_name=error.callable_name,
                argument=error.argument,
                sizes=error.sizes,
            ) from None
        if planned.plan.random_key is not None and planned.plan.may_draw:
            raise refuse_random_shards(self._planner.label)
        return planned

    def _per_shard(
        self, arrays: Sequence[Any], placement: Placement
    ) -> tuple[Planned, Sequence[Any]]:
        planned = self.planned_for_shard(arrays, placement)
        self._tell_if_dropped(planned)
        outputs = self._planner.place_outputs(placement, planned.plan)
        # A random key stands behind the arrays, and every shard has the whole of it.
        inputs = [*placement.inputs, *([(None,)] if self._call.leaves.keyed else [])]
        return planned, call_per_shard(
            placement.label,
            lambda *shards: planned.call(shards),
            arrays,
            inputs,
            outputs,
        )

    def planned(
        self, arrays: Sequence[Any], *, concrete: bool = True, runs: bool = True
    ) -> Planned:
        """The plan for these arrays; made if it is not there yet.

        Args:
            arrays: Arrays, tracers or ``ShapeDtypeStruct``.
            concrete: Values may be used where they are known.
            runs: The function may be run on made-up values if nothing else tells its outputs.

        Raises:
            ConcreteRunNeeded: It would have to, and may not.
        """
        return self._planned_for(_shapes(arrays), arrays if concrete else None, runs=runs)

    def _planned_for(
        self, shapes: Shapes, arrays: Sequence[Any] | None, *, runs: bool = True
    ) -> Planned:
        # Equal shapes are not enough: what JAX holds of the results depends on x64 as well.
        key = (shapes, x64_enabled())
        # First without the lock: who has a plan must not wait while another one is made.
        found = self._plans.get(key)
        if found is None:
            with self._lock:
                found = self._plans.get(key)
                if found is None:
                    values = None if arrays is None else _values(arrays)
                    found = self._planner.plan(
                        *(self._call, shapes, values),
                        # The author's own example may be run on.
                        eager=not runs and self._planner.example is None,
                        of_values=self._of_values.get(key),
                        guess=not runs,
                    )
                    if found.of_values is None:
                        self._plans[key] = found
        return found

    def _results(self, *arrays: Any) -> Any:
        """Traced by the eager call's own jit."""
        arrays = tuple(self.operands(arrays))
        placement = self.placement(arrays)
        if placement is not None:
            return self._boxed(*self._per_shard(arrays, placement))
        shapes = _shapes(arrays)
        key = (shapes, x64_enabled())
        with self._lock:
            planned = self._plans.get(key)
            if planned is None:
                # No values under jit: where planning needs some it raises, and `run` has them.
                planned = self._planner.plan(self._call, shapes, None, eager=True)
                self._plans[key] = planned
        if not planned.op.outputs:
            self._without_results.add(key)
            raise ConcreteRunNeeded
        return self._boxed(planned, planned.call(arrays))

    @staticmethod
    def _boxed(planned: Planned, results: Sequence[Any]) -> Any:
        # The results of a jit must be a pytree that JAX knows.
        structure = planned.plan.inference.structure
        if structure.inner:
            return Boxed(tuple(results), structure)
        return planned.rebuild(results)

    def _run_without_results(self, arrays: Sequence[Any]) -> Any:
        planned = self._plans.get(self._key(arrays))
        if planned is None or planned.op.outputs or planned.plan.inference.of_one_run:
            return self._run_for_real(arrays)
        with jax.ensure_compile_time_eval():
            values = [_as_jax(array) for array in self.operands(arrays)]
            return self._planner.call_without_results(self._call, planned, values)

    def _run_for_real(self, arrays: Sequence[Any]) -> Any:
        """Run on the caller's own arguments, and plan by what comes out, which is handed back."""
        # A call on constants may stand inside somebody's jit; it is run here and now all the same.
        with jax.ensure_compile_time_eval(), contextlib.ExitStack() as planning:
            arrays = [_as_jax(array) for array in self.operands(arrays)]
            shapes = _shapes(arrays)
            key = (shapes, x64_enabled())
            known = self._of_values.get(key)
            if known is None:  # otherwise there is nothing to plan, and calls do not wait
                planning.enter_context(self._lock)
            planned, result = self._planner.plan_by_running(
                self._call, shapes, arrays, of_values=known
            )
            if isinstance(planned, Planned):
                self._plans[key] = planned
                inference = planned.plan.inference
                if not inference.outputs:
                    self._without_results.add(key)
                else:
                    self._without_results.discard(key)
            else:
                self._of_values[key] = planned
        return result

    def _run_again(self, arrays: Sequence[Any], failure: OutputError) -> Any:
        """After a call that gave other results than an earlier one of the same shapes.

        Raises:
            OutputError: The planned ones were not those of a run, but are expected of all.
        """
        key = self._key(arrays)
        planned = self._plans.get(key)
        inference = None if planned is None else planned.plan.inference
        label = self._planner.label
        # The function may itself have made a call that failed so.
        own = failure.differs and failure.callable_name == label
        if own and failure.containers and inference is not None and inference.containers == "read":
            with self._lock:
                self._call.function.misread = True
                self._plans = {
                    key: one
                    for key, one in self._plans.items()
                    if one.plan.inference.containers != "read"
                }
                # What is compiled calls those that are gone.
                self._jitted = jax.jit(lambda *arrays: self._results(*arrays))
            return self._run_for_real(arrays)
        if not own or inference is None or not inference.of_one_run:
            raise failure from failure.__cause__
        with self._lock:
            self._of_values[key] = DynamicSizeError(
                other_sizes(label, "two calls with these shapes"), callable_name=label
            )
            self._plans.pop(key, None)
        return self._run_for_real(arrays)

    def _key(self, arrays: Sequence[Any]) -> Any:
        return _shapes(self.operands(arrays)), x64_enabled()


class Boxed:
    """A result with dataclasses that JAX does not know, on its way through the eager jit."""

    def __init__(self, leaves: tuple[Any, ...], structure: trees.Structure) -> None:
        self.leaves = leaves
        self.structure = structure

    def rebuild(self) -> Any:
        """The function's result."""
        return trees.unflatten(self.structure, self.leaves)


jax.tree_util.register_pytree_node(
    Boxed,
    lambda boxed: (boxed.leaves, boxed.structure),
    lambda structure, leaves: Boxed(tuple(leaves), structure),
)


def _shapes(arrays: Sequence[Any]) -> Shapes:
    return tuple((tuple(array.shape), _dtype_name(array)) for array in arrays)


def _dtype_name(array: Any) -> str:
    dtype = array.dtype
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        # Of a typed key; `canonicalize_dtype` refuses such dtypes.
        return str(dtype)
    return str(jax.dtypes.canonicalize_dtype(dtype))


def _as_jax(array: Any) -> Any:
    if type(array) is ArrayImpl or isinstance(array, jax.core.Tracer):
        return array
    return jnp.asarray(array)


def _values(arrays: Sequence[Any]) -> list[Any] | None:
    values = [concrete_value(array) for array in arrays]
    return None if any(value is None for value in values) else values
