"""`from_module`: a torch module as a pure function of its parameters and buffers."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import jax
import torch

from ..calling.call_planner import Planned
from ..calling.exporting import remember
from ..calling.jax_callable import JaxCallable
from ..calling.like_function import OfInstances, with_keywords
from ..calling.recipe.recipe import Recipe
from ..choices import Backend
from ..errors import ArgumentError, BridgeError, ModuleError
from ..planner.annotated_contract import contract_of_outputs, refuse_other_annotations
from ..planner.options import Options
from ..torchside.closure.function_identity import name_of
from ..torchside.closure.locks import locks_of
from ..torchside.inspection.reachable_objects import keys_of
from ..torchside.modules.module_call import (
    BuffersChange,
    Method,
    Mode,
    ModuleCall,
    called_of,
    signature_of,
)
from ..torchside.modules.skeleton import Template
from ..torchside.modules.structure_copy import NotCopiedError
from ..transfer import t2j
from .parameter_trees import NamedTree, Names
from .state_dicts import dumped, loaded

if TYPE_CHECKING:
    from ..spec.model import CallableSpec


def from_module(
    module: torch.nn.Module,
    *,
    names: Names = "nested",
    method: Method = None,
    copy: bool | None = None,
    outputs: Mapping[str, object] | str | None = None,
    copies: Sequence[str] = (),
    backend: Backend | None = None,
    islands: bool = True,
    cuda_graph: bool = False,
) -> JaxModule:
    """A module's parameters and buffers as JAX pytrees, and a pure function of them.

    The module is read here and then never again: it is not changed, and later changes to its
    layers do not show. Its tensors are shared where JAX can use their memory, as by `t2j`: train
    the module in torch afterwards and the arrays change too, also for programs that JAX has
    started and that have not ended yet, unless ``copy=True``.

    Args:
        module: Any module, on one device; compiled ones are taken as they were written.
        names: ``nested``: dicts in dicts, ``params["encoder"]["0"]["weight"]``. ``flat``: one dict,
            ``params["encoder.0.weight"]``.
        method: What ``apply`` calls instead of the module itself: the name of a method, or a
            function ``(module, *args, **kwargs)``.
        copy: As in `t2j`: True for arrays with memory of their own, False for an error instead
            of a copy.
        outputs: As in `jax_callable`: what ``apply`` returns, without buffers. With
            ``float32[kept<=100, 4]`` a result whose size follows from values is padded to a bound.
        copies: As in `jax_callable`: arguments that the module writes to (``("x",)``, as
            activations with ``inplace=True`` do), of which a call gives it copies.
        backend: As in `jax_callable`: what runs the module.
        islands: As in `jax_callable`: whether torch may run a part of it, with ``xla``.
        cuda_graph: As in `jax_callable`: whether XLA may record calls on a GPU, with ``graph``.

    Raises:
        ModuleError: A layer is run by TorchScript, or lazy and not yet called.
        TransferError: A parameter cannot be a JAX array (quantised, sparse, on the meta device).
        SpecError: ``outputs`` are not valid, or the annotations contradict them.
        ArgumentError: A keyword is not valid.
    """
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"from_module: expected a torch.nn.Module, got {type(module).__name__}")
    if names not in get_args(Names):
        known = ", ".join(get_args(Names))
        raise ArgumentError(f"from_module: expected names as one of {known}; got {names!r}.")
    if isinstance(copies, str):
        raise TypeError(
            f"from_module: expected copies as a sequence of names, got {copies!r}; write "
            f"copies=({copies!r},)."
        )
    if inspect.ismethod(method) and method.__self__ is module:
        # Bound to the original, whose parameters it would use.
        method = method.__func__
    try:
        # Not while a call on another thread has given the module other parameters.
        with locks_of(keys_of([module]), f"`{name_of(module)}`"):
            template = Template(module)
    except NotCopiedError as error:
        raise ModuleError(
            f"from_module, {name_of(module)}: expected a module that can be copied; {error}."
        ) from error
    options = Options(copies=tuple(copies), backend=backend, islands=islands, cuda_graph=cuda_graph)
    options.refuse_invalid()
    options.refuse_recording_code(backend or "auto")
    label = name_of(module)
    contract = None
    if outputs is not None:
        function = called_of(template.module, method)
        contract = contract_of_outputs(function, label, outputs, others=True)
        refuse_other_annotations(contract, function)
    return JaxModule(template, names, method, copy, label, options, contract)


class JaxModule:
    """A torch module as a pure function; made by `from_module`.

    Attributes:
        label: The name of its class.
        params: The parameters; those that several layers share are one leaf.
        buffers: The buffers, and parameters of integers, which have no gradient.
        trainable: For each leaf of ``params`` whether the module had it require grad.
    """

    def __init__(
        self,
        template: Template,
        names: Names,
        method: Method,
        copy: bool | None,
        label: str,
        options: Options,
        contract: CallableSpec | None = None,
    ) -> None:
        self._template = template
        self._contract = contract
        self._method = method
        self._options = options
        self.label = label
        self._signature = signature_of(template.module, method)
        own = self._signature.parameters
        # Behind `params` and `buffers`, which are no arguments of the module.
        self._clashes = [name for name in ("buffers", "train") if name in list(own)[2:]]
        params = [named for named in template.named if not named.is_buffer]
        buffers = [named for named in template.named if named.is_buffer]
        self._params = NamedTree("parameters", [f.name for f in params], names, label)
        self._buffers = NamedTree("buffers", [f.name for f in buffers], names, label)
        arrays = _arrays(template, copy)
        # The parameters are the first of `Template.named`.
        self.params = self._params.build(arrays[: len(params)])
        self.buffers = self._buffers.build(arrays[len(params) :])
        self.trainable = self._params.build([named.trainable for named in params])
        self._frozen = [named.name for named in params if not named.trainable]
        self._own_buffers = self._buffers.named(self.buffers)
        # From here on only the arrays hold the weights, so that a caller can donate them.
        template.forget()
        # One for each way of calling; which buffers change is a part of it.
        self._calls: dict[Mode, JaxCallable[..., Any]] = {}
        # Before there is one: what exported programs call is asked for before they are traced.
        remember(self, self.label, "0")
        # By train mode: buffers that were seen to change.
        self._changed: dict[bool | None, frozenset[str]] = {}
        self._lock = threading.Lock()

    def apply(
        self,
        params: Any,
        /,
        *args: Any,
        buffers: Any = None,
        rng: Any = None,
        train: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call the module with these parameters.

        Args:
            params: A pytree of the form of ``.params``.
            *args: What the module takes.
            buffers: A pytree of the form of ``.buffers``. If given, so are they returned: those
                that the call changes, and the others as they are.
            rng: A JAX random key, which dropout and the like draw from: the result is a function
                of it. Under ``jax.vmap`` over keys each element draws its own numbers.
            train: True as after ``module.train()``, False as after ``module.eval()``, None as the
                module was when it was taken.
            **kwargs: What the module takes by name.

        Returns:
            What the module returns; with ``buffers`` a pair ``(result, buffers)``.

        Raises:
            ModuleError: ``params`` or ``buffers`` do not fit, or the call would change buffers
                that nobody takes back.
            ArgumentError: A keyword could also be meant for the module, which has one of that name.
        """
        if self._clashes:
            self._refuse_clashes(buffers=buffers, train=train)
        weights = self._params.named(params)
        state = self._own_buffers if buffers is None else self._buffers.named(buffers)
        keyed = {} if rng is None else {"rng": rng}
        # Ends: each round knows more buffers that change, and a plan has them among its results.
        while True:
            seen = self._changed.get(train, frozenset()) if buffers is not None else frozenset()
            call = self._call(
                Mode(train, tuple(sorted(seen)), buffers is not None, rng is not None)
            )
            try:
                result = call(weights, state, *args, **kwargs, **keyed)
                break
            except BuffersChange as found:
                with self._lock:
                    known = self._changed.get(train, frozenset())
                    # Added, not replaced: a call on another thread may have found others meanwhile.
                    self._changed[train] = known | frozenset(found.names)
        if buffers is None:
            return result
        # By names, and only the buffers that the plan knew to change.
        result, changed = result
        return result, self._buffers.replaced(buffers, changed)

    __call__ = apply

    __name__ = OfInstances(lambda self: self.label)
    __signature__ = OfInstances(lambda self: self._own_signature())

    def __repr__(self) -> str:
        return f"from_module({self.label})"

    def freeze(self, params: Any) -> Any:
        """The same parameters, without a gradient for those that the module had not require it.

        Raises:
            ModuleError: They do not fit.
        """
        if not self._frozen:
            return params
        named = self._params.named(params)
        stopped = {name: jax.lax.stop_gradient(named[name]) for name in self._frozen}
        return self._params.replaced(params, stopped)

    def callable(self, *, train: bool | None = None) -> JaxCallable[..., Any]:
        """``(params, buffers, ...)`` by flat names, for ``plan`` and ``explain``."""
        return self._call(Mode(train))

    def with_backend(self, backend: Backend) -> JaxModule:
        """The same module with another backend; ``params`` and ``buffers`` are the same arrays.

        Raises:
            ArgumentError: There is no such backend.
        """
        options = self._options.with_backend(backend)
        found = object.__new__(type(self))
        vars(found).update(vars(self))
        found._options, found._lock = options, threading.Lock()
        found._calls, found._changed = {}, {}
        remember(found, self.label, "0")
        return found

    def explain(self, params: Any, /, *args: Any, train: bool | None = None, **kwargs: Any) -> str:
        """The plan of a call without ``buffers``, as text."""
        return self._call(Mode(train)).explain(
            self._params.named(params), self._own_buffers, *args, **kwargs
        )

    def planned_from(self, recipe: Recipe) -> Planned:
        """The plan of the call that an exported program describes; see `JaxCallable`."""
        if recipe.mode is None:
            raise ArgumentError(f"{self.label}: expected a call of a module, by `apply`.")
        return self._call(recipe.mode).planned_from(recipe)

    def load(self, state_dict: Mapping[str, Any], *, strict: bool = True) -> tuple[Any, Any]:
        """Parameters and buffers from a ``state_dict``, in the module's dtypes.

        What the state dict lacks (buffers that are not persistent, or anything without
        ``strict``) is as in ``.params`` and ``.buffers``.

        Raises:
            RuntimeError: Torch's own, for names and shapes that do not fit.
            ModuleError: An entry is neither a parameter nor a buffer (as quantised layers have
                them) and differs from the module's, or one that is lacking was donated.
        """
        own = [*self._params.values(self.params), *self._buffers.values(self.buffers)]
        found = loaded(self._template, self.label, own, state_dict, strict=strict)
        count = len(self._params.names)
        return self._params.build(found[:count]), self._buffers.build(found[count:])

    def dump(self, params: Any, buffers: Any = None) -> dict[str, torch.Tensor]:
        """The module's ``state_dict`` with these values, each in memory of its own.

        Names, order and entries are those of the module's own ``state_dict()``, so that
        ``module.load_state_dict(...)`` takes it: shared parameters under each of their names, no
        buffers that are not persistent. Integers get the module's dtype back.

        Args:
            params: A pytree of the form of ``.params``.
            buffers: A pytree of the form of ``.buffers``, which is the default.

        Raises:
            ModuleError: They do not fit.
            TransferError: They are tracers, or on several devices.
        """
        values = self._params.values(params)
        values += self._buffers.values(self.buffers if buffers is None else buffers)
        return dumped(self._template, self.label, values)

    def __copy__(self) -> JaxModule:
        """Itself: nothing in it changes."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> JaxModule:
        """Itself, so that models that hold it can be copied."""
        return self

    def __reduce__(self) -> Any:
        """Refuse to be pickled.

        Raises:
            ModuleError: Says what to keep instead.
        """
        raise ModuleError(
            f"{self.label}: expected not to be pickled, since it holds plans and code of this "
            "process. Keep `.dump(params, buffers)`, and make it again by from_module and `load`."
        )

    def _own_signature(self) -> inspect.Signature:
        """``(params, /, ...)``, what the module takes, and keywords of `apply`."""
        params, _, *rest = self._signature.parameters.values()
        found = self._signature.replace(parameters=[params, *rest])
        return with_keywords(found, ("buffers", "rng", "train"))

    def _refuse_clashes(self, **given: Any) -> None:
        for name in self._clashes:
            if given[name] is not None:
                raise ArgumentError(
                    f"{self.label}: expected `{name}=` to mean one thing; it is a keyword of "
                    "apply, and the module has an argument of that name. Pass the module's by its "
                    "position, or take it by from_module(module, method=...) with a function that "
                    "calls it otherwise."
                )

    def _call(self, mode: Mode) -> JaxCallable[..., Any]:
        found = self._calls.get(mode)
        if found is None:
            with self._lock:
                function = ModuleCall(self._template, self._method, mode, self.label)
                options = replace(self._options, random="key") if mode.keyed else self._options
                made = JaxCallable(function, self._contract, name=self.label, options=options)
                # Another thread may have made one meanwhile: that stays, with its plans.
                found = self._calls.setdefault(mode, made)
        return found


def _arrays(template: Template, copy: bool | None) -> list[jax.Array]:
    arrays = []
    for named, tensor in zip(template.named, template.tensors, strict=True):
        try:
            arrays.append(t2j(tensor, copy=copy))
        except BridgeError as error:
            raise type(error)(f"from_module, `{named.name}`: {error}") from error
    return arrays
