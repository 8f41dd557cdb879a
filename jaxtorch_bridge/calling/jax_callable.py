"""`JaxCallable`: a torch function as a JAX function, from a caller's arguments to its results."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeVar,
    overload,
)

import jax
import torch

from .._compat.jax.arrays import ArrayImpl
from .._compat.torch.thread_flags import function_modes, is_any_autocast_enabled
from ..choices import Backend
from ..errors import ArgumentError
from ..jaxside.inlined.coverage import coverage_of
from ..planner.build_plan import version_of
from ..planner.explain import explain_plan
from ..planner.options import NO_OPTIONS, Options
from ..planner.plan import CallPlan
from ..planner.sharding import Placement
from ..planner.unenforced import not_acted_on
from ..torchside.closure.function_identity import name_of
from ..torchside.handler.torch_context import current_context
from ..torchside.op.stream_order import order_words
from .arguments.random_key import KEYWORD, check_key, key_for_tensors, key_use, missing_key
from .arguments.sort_leaves import KEYED, Leaves, quick_key, sort_flat, sort_leaves
from .bound_methods import MOST_INSTANCES, BoundCallables, bound_function, is_bindable
from .call_planner import Planned, Planner
from .exporting import remember
from .kept_ways import KeptWays
from .like_function import LikeFunction, signature_of, take_names
from .recipe.recipe import Recipe
from .way_of_calling import WayOfCalling

if TYPE_CHECKING:
    from ..spec.model import CallableSpec

P = ParamSpec("P")
R = TypeVar("R")
# Of methods: what they are bound to, and their other parameters.
T = TypeVar("T")
Q = ParamSpec("Q")


class JaxCallable(LikeFunction, Generic[P, R]):
    """A torch function as a JAX function; made by `jax_callable`.

    Attributes:
        torch: The original torch function.
        spec: The contract, or None.
    """

    __slots__ = (
        *("_label", "_planner", "_state_key", "_key_use"),
        *("_ways", "_known", "_bound"),
        *("__dict__", "__weakref__"),
    )

    def __init__(
        self,
        function: Callable[P, R],
        spec: CallableSpec | None = None,
        example: Sequence[Any] | None = None,
        name: str | None = None,
        options: Options = NO_OPTIONS,
    ) -> None:
        take_names(self, function)
        self.torch: Callable[P, R] = function
        self.spec = spec
        version = spec.at_version if spec else ""
        plain = name or (spec.label.removesuffix(version) if spec else name_of(function))
        self._label = plain + version
        self._planner = Planner(function, spec, example, plain, self._label, options)
        remember(self, plain, version_of(spec))
        self._state_key = self._planner.state_key
        self._key_use = key_use(function, spec, options, self._label)
        self._ways = KeptWays(self._planner)
        # Of these the everyday ones, by cheaper keys.
        self._known = self._ways.quick
        self._bound = BoundCallables() if is_bindable(function) else None

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run on JAX arrays, or pass torch tensors straight through.

        Raises:
            ArgumentError: Arrays of both sides, or an unhashable static value.
            SpecMismatchError: The call does not fit the contract.
            TorchExecutionError: The torch function failed (its exception is the cause).
        """
        if torch.compiler.is_dynamo_compiling():  # never, but in the code that Dynamo makes of this
            return self.torch(*args, **kwargs)
        # A random key is an array, but no argument of the torch function: it is taken out first.
        if KEYWORD in kwargs and self._key_use != "no":
            return self._keyed_call(args, kwargs)  # type: ignore[no-any-return]
        # Both are part of the context, which the quick keys below leave out.
        if is_any_autocast_enabled() or function_modes():
            return self._sorted_call(args, kwargs, None)  # type: ignore[no-any-return]
        # The common ways of calling are looked up before anything is taken apart: an eager
        # call should cost little more than a jitted one.
        surroundings = (torch.is_grad_enabled(), torch.get_default_dtype(), self._state_key())
        if not kwargs:
            for argument in args:
                if type(argument) is not ArrayImpl:
                    break
            else:
                # Of arrays alone the number tells the structure; jit itself looks at shapes.
                key = (len(args), surroundings)
                way = self._known.get(key)
                if way is None:
                    return self._sorted_call(args, kwargs, key)  # type: ignore[no-any-return]
                return way.run(args)  # type: ignore[no-any-return]
        quick = quick_key(args, kwargs)
        if quick is None:
            return self._sorted_call(args, kwargs, None)  # type: ignore[no-any-return]
        known = (quick[0], surroundings)
        way = self._known.get(known)
        if way is None:
            return self._sorted_call(args, kwargs, known)  # type: ignore[no-any-return]
        return way.run(quick[1])  # type: ignore[no-any-return]

    def plan(self, *args: P.args, **kwargs: P.kwargs) -> CallPlan:
        """The plan for these arguments: arrays, tracers or `jax.ShapeDtypeStruct`.

        May run the torch function, if it cannot be evaluated abstractly; `explain` tells.
        """
        return self._planned(args, kwargs).plan

    def planned_from(self, recipe: Recipe) -> Planned:
        """The plan of the call that an exported program describes.

        Raises:
            ConcreteRunNeeded: The function would have to be run for that.
            ArgumentError: It cannot be called so.
        """
        if recipe.mode != self._planner.mode:
            raise ArgumentError(f"{self._label}: expected to be called in another mode.")
        leaves = sort_flat(self._label, recipe.flat, recipe.structure)
        if recipe.key is not None and self._key_use == "no":
            raise ArgumentError(f"{self._label}: expected no random key, and the program has one.")
        leaves = self._with_key(leaves, recipe.key)
        way = self._way_of(leaves)
        return way.planned(way.operands(leaves.arrays), concrete=False, runs=False)

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The plan for these arguments as text: what was chosen, and why not something better."""
        planned, placement = self._placed(args, kwargs)
        made = planned.op.derived
        derived = [
            line
            for item in made.named("linearize", "pushforward", "transposed")
            for line in item.words
        ]
        derived += {item.under_checkpoint: None for item in made.named("linearize")}
        return explain_plan(
            planned.plan,
            [*filter(None, derived)],
            [line for item in made.named("batched") for line in item.words],
            () if placement is None else placement.words,
            [*planned.notes, *not_acted_on(self.spec)],
            results=planned.op.results,
            streams=order_words(planned.op.program) if planned.op.program.device == "cuda" else "",
            operations=() if planned.op.aten is None else coverage_of(planned.op).words,
            recording=planned.op.recording.words,
        )

    def with_backend(self, backend: Backend) -> JaxCallable[P, R]:
        """The same function with another backend, whatever its contract says.

        Raises:
            ArgumentError: There is no such backend.
        """
        planner = self._planner
        options = planner.options.with_backend(backend)
        return JaxCallable(self.torch, self.spec, planner.example, planner.name, options)

    def dimension_names(
        self, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[tuple[str | None, ...], ...]:
        """For each array of a call, flat, what the contract calls each dimension, or None."""
        named = {name: value for name, value in kwargs.items() if name != KEYWORD}
        leaves = sort_leaves(self._label, args, kwargs if self._key_use == "no" else named)
        return self._way_of(leaves).dimension_names(leaves.arrays)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> JaxCallable[P, R]: ...
    @overload
    def __get__(
        self: JaxCallable[Concatenate[T, Q], R], instance: T, owner: type | None = None
    ) -> JaxCallable[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """As a method: bound to the instance, which torch gets as it is."""
        bound = self._bound
        if instance is None or bound is None:
            return self
        found = bound.get(id(instance))
        # Which is the latest matters only where one has to go.
        if found is not None and len(bound) < MOST_INSTANCES:
            return found
        return bound.find(
            instance,
            lambda: JaxCallable(bound_function(self.torch, instance, owner), *self._made_of()[1:]),
        )

    def _made_of(self) -> tuple[Any, ...]:
        planner = self._planner
        return self.torch, self.spec, planner.example, planner.name, planner.options

    def _signature(self) -> inspect.Signature:
        return signature_of(self.torch, (KEYWORD,) if self._key_use == "must" else ())

    def __repr__(self) -> str:
        return f"jax_callable({self._label})"

    def _keyed_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call with a random key, which is no argument of the torch function."""
        rng = kwargs.pop(KEYWORD)
        if rng is None:
            return self._sorted_call(args, kwargs, None)
        plain = isinstance(rng, jax.Array) and not isinstance(rng, jax.core.Tracer)
        if not plain or is_any_autocast_enabled() or function_modes():
            return self._sorted_call(args, kwargs, None, rng)
        quick = quick_key(args, kwargs)
        if quick is None:
            return self._sorted_call(args, kwargs, None, rng)
        surroundings = (torch.is_grad_enabled(), torch.get_default_dtype(), self._state_key())
        # That there is a key, and not which: its words are an operand, like the arrays.
        known = (KEYED, quick[0], surroundings)
        way = self._known.get(known)
        if way is None:
            return self._sorted_call(args, kwargs, known, rng)
        return way.run([*quick[1], rng])

    def _with_key(self, leaves: Leaves, rng: Any) -> Leaves:
        """The call with its random key.

        Raises:
            ArgumentError: It needs one, or what was passed is none.
        """
        if rng is not None:
            check_key(self._label, rng)
            return leaves.with_key(rng)
        if self._key_use == "must":
            raise missing_key(self._label)
        return leaves

    def _sorted_call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], key: Any, rng: Any = None
    ) -> Any:
        """A call whose leaves have to be looked at; remembered under ``key`` if there is one."""
        leaves = sort_leaves(self._label, args, kwargs)
        if leaves.tensors:
            if rng is not None:
                raise key_for_tensors(self._label)
            return self.torch(*args, **kwargs)
        leaves = self._with_key(leaves, rng)
        for leaf in leaves.template:
            # Its parameters are read by the call as if the function closed over it.
            if isinstance(leaf, torch.nn.Module):
                self._planner.closure.watch(leaf)
        way = self._way_of(leaves)
        if key is not None:
            self._known[key] = way
        return way.trace(leaves.arrays) if leaves.traced else way.run(leaves.arrays)

    def _way_of(self, leaves: Leaves) -> WayOfCalling:
        return self._ways.find(leaves, current_context(), self._state_key())

    def _planned(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Planned:
        return self._placed(args, kwargs)[0]

    def _placed(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Planned, Placement | None]:
        rng = None if self._key_use == "no" else kwargs.pop(KEYWORD, None)
        leaves = self._with_key(sort_leaves(self._label, args, kwargs), rng)
        concrete = not any(isinstance(array, jax.ShapeDtypeStruct) for array in leaves.arrays)
        way = self._way_of(leaves)
        arrays = way.operands(leaves.arrays)
        placement = way.placement(arrays)
        if placement is not None:
            return way.planned_for_shard(arrays, placement), placement
        return way.planned(arrays, concrete=concrete), None
