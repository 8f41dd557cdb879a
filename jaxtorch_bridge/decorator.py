"""`jax_callable`: a torch function as a JAX function."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    TypeAlias,
    TypeVar,
    overload,
)

import jax
import torch

from ._compat.jax.arrays import ArrayImpl
from ._compat.torch.thread_flags import function_modes, is_any_autocast_enabled
from .calling.arguments.random_key import KEYWORD, check_key, key_for_tensors, key_use, missing_key
from .calling.arguments.sort_leaves import KEYED, Leaves, quick_key, sort_flat, sort_leaves
from .calling.bound_methods import MOST_INSTANCES, BoundCallables, bound_function, is_bindable
from .calling.call_planner import Planned, Planner
from .calling.entries import Entries
from .calling.entry import Entry
from .calling.exporting import remember
from .calling.like_function import LikeFunction, described, signature_of, take_names
from .calling.recipe.recipe import Recipe
from .choices import ConcurrencyMode, RandomMode, VmapMethod
from .errors import ArgumentError
from .planner.annotated_contract import (
    annotated_contract,
    contract_of_outputs,
    refuse_other_annotations,
)
from .planner.build_plan import version_of
from .planner.explain import explain_plan
from .planner.options import NO_OPTIONS, Options
from .planner.plan import CallPlan
from .planner.sharding import Placement
from .planner.unenforced import not_acted_on, refuse_other_defaults
from .torchside.closure.function_identity import name_of
from .torchside.handler.torch_context import current_context

if TYPE_CHECKING:
    from .spec.model import CallableSpec

P = ParamSpec("P")
R = TypeVar("R")
# Of methods: what they are bound to, and their other parameters.
T = TypeVar("T")
Q = ParamSpec("Q")

SpecLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | CallableSpec"


@overload
def jax_callable(
    function: Callable[P, R],
    /,
    *,
    spec: SpecLike | None = None,
    outputs: Mapping[str, Any] | str | None = None,
    example: Sequence[Any] | None = None,
    name: str | None = None,
    nondiff: Sequence[str] = (),
    vmap_method: VmapMethod | None = None,
    verify: bool | None = None,
    concurrency: ConcurrencyMode | None = None,
    random: RandomMode | None = None,
    mutates: Sequence[str] | None = None,
    copies: Sequence[str] | None = None,
) -> JaxCallable[P, R]: ...
@overload
def jax_callable(
    function: None = None,
    /,
    *,
    spec: SpecLike | None = None,
    outputs: Mapping[str, Any] | str | None = None,
    example: Sequence[Any] | None = None,
    name: str | None = None,
    nondiff: Sequence[str] = (),
    vmap_method: VmapMethod | None = None,
    verify: bool | None = None,
    concurrency: ConcurrencyMode | None = None,
    random: RandomMode | None = None,
    mutates: Sequence[str] | None = None,
    copies: Sequence[str] | None = None,
) -> Callable[[Callable[P, R]], JaxCallable[P, R]]: ...
def jax_callable(
    function: Callable[..., Any] | None = None,
    /,
    *,
    spec: SpecLike | None = None,
    outputs: Mapping[str, Any] | str | None = None,
    example: Sequence[Any] | None = None,
    name: str | None = None,
    nondiff: Sequence[str] = (),
    vmap_method: VmapMethod | None = None,
    verify: bool | None = None,
    concurrency: ConcurrencyMode | None = None,
    random: RandomMode | None = None,
    mutates: Sequence[str] | None = None,
    copies: Sequence[str] | None = None,
) -> Any:
    """A JAX function that runs a torch function on XLA's own buffers.

    Use it as a decorator, with or without arguments, or as a plain call on a function, a
    lambda, a ``functools.partial``, a bound method or a ``torch.nn.Module``.

    Called with JAX (or numpy) arrays or tracers, the result is a JAX function: eager, under
    ``jit``, ``grad`` and the rest. Called with torch tensors it is the torch function itself,
    untouched. Arguments and results may be any pytrees; leaves that are no arrays are static.

    Args:
        function: The torch function.
        spec: Its contract: a path to YAML, a name and version of the registry (``attention@2``:
            the newest 2.x), a mapping, or a `CallableSpec`. Enforced at trace time and when
            running. Default: what jaxtyping's annotations of the function say, if it has any.
        outputs: What comes back, as a contract's ``outputs`` say it, for functions without one:
            a mapping by name, in the order of the results, or one array as text. With
            ``float32[kept<=100, 4]`` a result whose size follows from values is padded to a bound,
            as ``jax.numpy.nonzero(size=100)`` does.
        example: Concrete positional arguments to run on once, where the outputs depend on
            values and abstract evaluation fails.
        name: Name for messages and op keys; default: the contract's, or the function's own.
        nondiff: Paths of array leaves that get no derivative, as ``jax.lax.stop_gradient`` would
            do: ``("mask", "params['frozen']")``.
        vmap_method: What ``jax.vmap`` does: ``torch_vmap`` (the default: one call of
            ``torch.vmap``, one by one where it cannot), ``sequential``, ``sequential_unrolled``,
            ``expand_dims`` or ``broadcast_all``, with the meaning that `jax.pure_callback` gives
            to them. The last two are claims that the function works along leading axes.
        verify: Compare the first batched run of a plan with single calls.
        concurrency: How calls on several devices share the modules that the function closes over:
            ``parallel`` (at the same time) or ``locked`` (one at a time). Default: the
            contract's, or the best that is safe.
        random: ``key``: every call takes a JAX random key as ``rng=``, from which torch's
            generators are seeded for the call. Default: the contract's; without a contract a
            call may take one.
        mutates: Arguments that the function writes to (``("x",)``, or ``("state.mean",)`` for a
            part of one). Their new values come behind the function's result, or alone if it
            returns nothing or only them. Under ``jit`` with ``donate_argnums`` the new value is
            the same memory; otherwise the caller's array is left as it is. Default: the
            contract's.
        copies: Arguments of which the function gets a copy of its own, since its code writes to
            them and cannot be changed; named as in ``mutates``, also whole containers. The
            caller's array keeps its value, and what is written is lost. Default: the contract's.

    Returns:
        The JAX function. ``.torch`` is the original, ``.spec`` the contract, ``.plan(*args)``
        the frozen plan, ``.explain(*args)`` the plan as text.

    Raises:
        SpecError: The contract or ``outputs`` are not valid, or the function's annotations
            contradict them.
        ArgumentError: A keyword is not valid, or contradicts the contract.
        TypeError: ``function`` cannot be called.
    """
    if function is None:
        return functools.partial(
            jax_callable,
            spec=spec,
            outputs=outputs,
            example=example,
            name=name,
            nondiff=nondiff,
            vmap_method=vmap_method,
            verify=verify,
            concurrency=concurrency,
            random=random,
            mutates=mutates,
            copies=copies,
        )
    if not callable(function):
        raise TypeError(f"jax_callable: expected a callable, got {type(function).__name__}")
    if isinstance(nondiff, str):
        raise TypeError(
            f"jax_callable: expected nondiff as a sequence of paths, got {nondiff!r}; write "
            f"nondiff=({nondiff!r},)."
        )
    for keyword, names in (("mutates", mutates), ("copies", copies)):
        if isinstance(names, str):
            raise TypeError(
                f"jax_callable: expected {keyword} as a sequence of names, got {names!r}; write "
                f"{keyword}=({names!r},)."
            )
    options = Options(
        tuple(nondiff),
        vmap_method,
        verify,
        concurrency,
        random=random,
        mutates=None if mutates is None else tuple(mutates),
        copies=None if copies is None else tuple(copies),
    )
    options.refuse_invalid()
    contract: CallableSpec | None
    if outputs is not None:
        if spec is not None:
            raise ArgumentError(
                "jax_callable: expected outputs from `spec` or from `outputs`; got both. Write "
                "those of `outputs` into the contract."
            )
        contract = contract_of_outputs(described(function), name or name_of(function), outputs)
        refuse_other_annotations(contract, described(function))
    elif spec is not None:
        # Here: a program without contracts starts without pydantic.
        from .spec.files.load import load_spec

        contract = load_spec(spec, near=_folder_of(function))
        refuse_other_defaults(contract, function)
        refuse_other_annotations(contract, described(function))
        options.refuse_contradiction(contract)
    else:
        contract = annotated_contract(described(function), name or name_of(function))
    return JaxCallable(function, contract, example, name, options)


def _folder_of(function: Callable[..., Any]) -> str | None:
    """The folder of the file that defines ``function``, where its project is looked for."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return None if code is None else os.path.dirname(os.path.abspath(code.co_filename))


class JaxCallable(LikeFunction, Generic[P, R]):
    """A torch function as a JAX function; made by `jax_callable`.

    Attributes:
        torch: The original torch function.
        spec: The contract, or None.
    """

    __slots__ = (
        *("_label", "_planner", "_state_key", "_key_use"),
        *("_entries", "_known", "_bound"),
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
        plain = name or (spec.name if spec else name_of(function))
        self._label = plain + spec.label.removeprefix(spec.name) if spec else plain
        self._planner = Planner(function, spec, example, plain, self._label, options)
        remember(self, plain, version_of(spec))
        self._state_key = self._planner.state_key
        self._key_use = key_use(function, spec, options, self._label)
        self._entries = Entries(self._planner)
        # Of these the everyday ones, by cheaper keys.
        self._known = self._entries.quick
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
                entry = self._known.get(key)
                if entry is None:
                    return self._sorted_call(args, kwargs, key)  # type: ignore[no-any-return]
                return entry.run(args)  # type: ignore[no-any-return]
        quick = quick_key(args, kwargs)
        if quick is None:
            return self._sorted_call(args, kwargs, None)  # type: ignore[no-any-return]
        known = (quick[0], surroundings)
        entry = self._known.get(known)
        if entry is None:
            return self._sorted_call(args, kwargs, known)  # type: ignore[no-any-return]
        return entry.run(quick[1])  # type: ignore[no-any-return]

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
        entry = self._entry(leaves)
        return entry.planned(entry.operands(leaves.arrays), concrete=False, runs=False)

    def explain(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The plan for these arguments as text: what was chosen, and why not something better."""
        planned, placement = self._placed(args, kwargs)
        derived = [
            item.words
            for item in planned.op.derived.named("linearize", "pushforward", "transposed")
        ]
        batches = [item.words for item in planned.op.derived.named("batched")]
        return explain_plan(
            planned.plan,
            [line for words in derived for line in words],
            [line for words in batches for line in words],
            () if placement is None else placement.words,
            [*planned.notes, *not_acted_on(self.spec)],
            results=planned.op.results,
        )

    def dimension_names(
        self, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[tuple[str | None, ...], ...]:
        """For each array of a call, flat, what the contract calls each dimension, or None."""
        named = {name: value for name, value in kwargs.items() if name != KEYWORD}
        leaves = sort_leaves(self._label, args, kwargs if self._key_use == "no" else named)
        return self._entry(leaves).dimension_names(leaves.arrays)

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
        entry = self._known.get(known)
        if entry is None:
            return self._sorted_call(args, kwargs, known, rng)
        return entry.run([*quick[1], rng])

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
        entry = self._entry(leaves)
        if key is not None:
            self._known[key] = entry
        return entry.trace(leaves.arrays) if leaves.traced else entry.run(leaves.arrays)

    def _entry(self, leaves: Leaves) -> Entry:
        return self._entries.find(leaves, current_context(), self._state_key())

    def _planned(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Planned:
        return self._placed(args, kwargs)[0]

    def _placed(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Planned, Placement | None]:
        rng = None if self._key_use == "no" else kwargs.pop(KEYWORD, None)
        leaves = self._with_key(sort_leaves(self._label, args, kwargs), rng)
        concrete = not any(isinstance(array, jax.ShapeDtypeStruct) for array in leaves.arrays)
        entry = self._entry(leaves)
        arrays = entry.operands(leaves.arrays)
        placement = entry.placement(arrays)
        if placement is not None:
            return entry.planned_for_shard(arrays, placement), placement
        return entry.planned(arrays, concrete=concrete), None
