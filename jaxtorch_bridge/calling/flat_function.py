"""A torch function over flat tensors: its call put together, its result taken apart.

This runs in every call, between XLA's code and torch's, where each step of Python costs several
times what it costs in a loop of its own. So the everyday forms have steps of their own.
"""

from __future__ import annotations

import copy
import inspect
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import torch

from .._compat.torch.compiled_code import compiled_function
from ..errors import OutputError
from ..torchside.modules.module_call import ModuleCall
from .arguments.copied_arguments import on_copies
from .arguments.sort_leaves import Leaves, named_arguments
from .pytrees import trees
from .pytrees.trees import Structure

# Where a contract was all that there was to plan from.
_TELL = (
    " A contract does not say which containers results come in: call the function once eagerly, "
    "give example=(...), or annotate what it returns, such as `-> dict[str, torch.Tensor]`."
)

Bind = Callable[[Sequence[Any]], tuple[Sequence[Any], dict[str, Any]]]
Unpack = Callable[[Any], Sequence[Any] | None]


class FlatFunction:
    """One way of calling a torch function, over its tensors alone."""

    def __init__(self, function: Callable[..., Any], leaves: Leaves) -> None:
        self._given = function
        self._function = function
        self._mutated = leaves.mutated
        self._copied, self._tell = leaves.copied, leaves.tell
        self._bounded = leaves.bounded
        self._recorded = True
        self._expected: tuple[Structure, str] | None = None
        self._advice = ""
        # How results of calls are put together, once a run has shown it, and whether one has shown
        # that it is not as the code reads.
        self.shown: Structure | None = None
        self.misread = False
        self._passes_out = "out" in dict(named_arguments(function, leaves, leaves.template))
        if isinstance(function, ModuleCall):
            # It takes the tensors of its first two arguments as they come.
            self._function, self._bind = function.on_state, _state_binder(leaves, function)
            self._direct = False
            return
        self._bind = _binder(leaves)
        args, kwargs = _numbered(leaves.structure, len(leaves.template))
        # Arrays alone, by position and in order: `runner` can be the function itself.
        self._direct = not kwargs and args == tuple(range(len(leaves.positions)))
        self._direct = self._direct and leaves.mutated is None and leaves.bounded is None

    @property
    def paired(self) -> bool:
        """Whether results come in a pair with buffers, as those of modules may."""
        return isinstance(self._given, ModuleCall) and self._given.mode.returns_buffers

    @property
    def mutated(self) -> tuple[int, ...]:
        """Which tensors `runner` writes to, as declared; their new values come last."""
        return () if self._mutated is None else self._mutated.slots

    def structure_around(self, result: Any) -> Structure:
        """How the results of calls are put together, if the function puts its own together so.

        Args:
            result: What it returns, with anything in the place of tensors.
        """
        behind = 0
        if self._mutated is not None:
            result, behind = self._mutated.around(result)
        if self._bounded is not None:
            result = self._bounded.around(result, behind)
        if isinstance(self._given, ModuleCall) and self.paired:
            result = (result, {name: 0 for name, *_ in self._given.changed})
        return trees.flatten(result)[1]

    def expecting(self, structure: Structure, label: str, *, shown: bool) -> FlatFunction:
        """The same, which raises OutputError where results have another structure.

        Args:
            structure: What was planned.
            label: The callable's name, for messages.
            shown: Somebody has seen results of that structure, or declared it.
        """
        made = copy.copy(self)
        made._expected, made._advice = (structure, label), "" if shown else _TELL
        return made

    def __call__(self, *tensors: torch.Tensor) -> tuple[list[Any], Structure]:
        """Flat tensors to flat leaves and their structure. Declared writes go to copies."""
        if self._mutated is None:
            return self._on_copies(self._plainly)(*tensors)  # type: ignore[no-any-return]
        copies = self._mutated.copies(tensors)
        found = self.writing(*copies)
        self._mutated.release(copies)
        return found

    def compiled(self) -> FlatFunction:
        """The same with the function compiled by ``torch.compile``; not what is around it.

        A module of `from_module` stays as it is: each call has its layers anew, which would be
        compiled anew.
        """
        if isinstance(self._given, ModuleCall):
            return self
        made = copy.copy(self)
        made._function, made._recorded = compiled_function(self._function), False
        return made

    def writing(self, *tensors: torch.Tensor) -> tuple[list[Any], Structure]:
        """The same, with declared writes to the tensors themselves."""
        return self._on_copies(self._writing)(*tensors)  # type: ignore[no-any-return]

    def _on_copies(self, run: Callable[..., Any]) -> Callable[..., Any]:
        return on_copies(run, self._copied, recorded=self._recorded, tell=self._tell)

    def _plainly(self, *tensors: torch.Tensor) -> tuple[list[Any], Structure]:
        args, kwargs = self._bind(tensors)
        return self._flat(self._padded(self._function(*args, **kwargs), tensors))

    def _writing(self, *tensors: torch.Tensor) -> tuple[list[Any], Structure]:
        assert self._mutated is not None
        args, kwargs = self._bind(tensors)
        result = self._mutated.call(self._function, args, kwargs)
        return self._flat(self._padded(self._mutated.result(result, tensors), tensors))

    def _flat(self, result: Any) -> tuple[list[Any], Structure]:
        if self._expected is None:
            return trees.flatten(result)
        return _checked(result, *self._expected, self._advice), self._expected[0]

    def _padded(self, result: Any, tensors: Sequence[torch.Tensor]) -> Any:
        if self._bounded is None:
            return result
        if self.paired:
            own, buffers = result
            return self._bounded.result(own, tensors), buffers
        behind = 0 if self._mutated is None else self._mutated.behind
        return self._bounded.result(result, tensors, behind)

    def runner(self, structure: Structure, label: str, *, seen: bool = True) -> Callable[..., Any]:
        """The function from flat tensors to flat results, for results of this structure.

        Args:
            structure: What was planned.
            label: The callable's name, for messages.
            seen: All calls return that. Otherwise one tensor may come in a tuple.

        Returns:
            A callable that raises OutputError when torch returns another structure. The torch
            function itself where nothing needs to be done around it.
        """
        if self._direct and structure.is_leaf and seen:
            return self._on_copies(self._function)
        function, bind, unpack = self._function, self._bind, _unpacker(structure)
        mutated, bounded, advice = self._mutated, self._bounded, self._advice

        def run(*tensors: torch.Tensor) -> Any:
            args, kwargs = bind(tensors)
            result = function(*args, **kwargs)
            if mutated is not None:
                result = mutated.result(result, tensors)
                mutated.release(tensors)
            if bounded is not None:
                result = self._padded(result, tensors)
            leaves = unpack(result)
            return _checked(result, structure, label, advice) if leaves is None else leaves

        return self._on_copies(run)

    @property
    def takes_out(self) -> bool:
        """Whether the function has a parameter ``out`` that the call leaves at None."""
        if self._bounded is not None:  # what it writes has not the size of the buffer
            return False
        try:
            parameter = inspect.signature(self._function).parameters.get("out")
        except (TypeError, ValueError):  # builtins have no signature
            return False
        return parameter is not None and parameter.default is None and not self._passes_out

    def out_runner(self, structure: Structure, label: str) -> Callable[..., Any]:
        """Like `runner`, of tensors and of those that ``out=`` is to be, one for each result."""
        function, bind, unpack = self._function, self._bind, _unpacker(structure)
        count, advice = trees.leaf_count(structure), self._advice

        def run(*tensors: torch.Tensor) -> Any:
            # The handler hands over the results' buffers behind the inputs.
            args, kwargs = bind(tensors[:-count])
            result = function(*args, **kwargs, out=trees.unflatten(structure, tensors[-count:]))
            leaves = unpack(result)
            return _checked(result, structure, label, advice) if leaves is None else leaves

        return self._on_copies(run)


def _numbered(structure: Structure, count: int) -> Any:
    """The tree with each leaf replaced by its number."""
    return trees.unflatten(structure, range(count))


def _binder(leaves: Leaves) -> Bind:
    """From the tensors to positional and keyword arguments."""
    slots = {position: slot for slot, position in enumerate(leaves.positions)}
    args, kwargs = _numbered(leaves.structure, len(leaves.template))
    if not all(type(value) is int for value in (*args, *kwargs.values())):
        return _nested_binder(leaves)
    if not kwargs and list(args) == list(slots):
        return lambda tensors: (tensors, {})
    arg_template = [leaves.template[number] for number in args]
    arg_slots = [(i, slots[number]) for i, number in enumerate(args) if number in slots]
    kwarg_template = {name: leaves.template[number] for name, number in kwargs.items()}
    kwarg_slots = [(name, slots[number]) for name, number in kwargs.items() if number in slots]

    def bind(tensors: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        # Copies, since calls on other threads put their arguments together at the same time.
        positional, named = arg_template.copy(), kwarg_template.copy()
        for index, slot in arg_slots:
            positional[index] = tensors[slot]
        for name, slot in kwarg_slots:
            named[name] = tensors[slot]
        return positional, named

    return bind


def _state_binder(leaves: Leaves, function: ModuleCall) -> Bind:
    """The binder of a module's call: the state as one argument, then the others."""
    count = function.state_count
    args, kwargs = _numbered(leaves.structure, len(leaves.template))
    # Behind parameters and buffers, whose tensors are the first ones of the call.
    numbers, structure = trees.flatten((tuple(args[2:]), kwargs))
    arrays = set(leaves.positions)
    others = replace(
        leaves,
        structure=structure,
        template=[leaves.template[number] for number in numbers],
        positions=tuple(slot for slot, number in enumerate(numbers) if number in arrays),
    )
    bind_others = _binder(others)

    def bind(tensors: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        positional, named = bind_others(tensors[count:])
        return (tensors[:count], *positional), named

    return bind


def _nested_binder(leaves: Leaves) -> Bind:
    template, positions = leaves.template, leaves.positions
    build = _builder(_numbered(leaves.structure, len(template))) or (
        lambda flat: trees.unflatten_for_torch(leaves.structure, flat)
    )

    def bind(tensors: Sequence[Any]) -> tuple[Sequence[Any], dict[str, Any]]:
        # A copy, for the same reason as in `_binder`.
        flat = template.copy()
        for position, tensor in zip(positions, tensors, strict=True):
            flat[position] = tensor
        args, kwargs = build(flat)
        return args, kwargs

    return bind


def _builder(numbered: Any) -> Callable[[Sequence[Any]], Any] | None:
    """From flat leaves to a tree of dicts, lists and tuples; None if there is anything else."""
    kind = type(numbered)
    if kind is int:
        return operator.itemgetter(numbered)
    if numbered is None:
        return lambda flat: None
    # JAX's own `unflatten` has to do it then, which knows all of its nodes.
    if kind not in (dict, list, tuple):
        return None
    parts = [_builder(part) for part in (numbered.values() if kind is dict else numbered)]
    builders = [part for part in parts if part is not None]
    if len(builders) != len(parts):
        return None
    if kind is dict:
        named = list(zip(numbered, builders, strict=True))
        return lambda flat: {name: build(flat) for name, build in named}
    if kind is list:
        return lambda flat: [build(flat) for build in builders]
    return lambda flat: tuple([build(flat) for build in builders])


def _unpacker(structure: Structure) -> Unpack:
    """From a result to its leaves, or None if it does not look as planned."""
    count = trees.leaf_count(structure)
    if structure.is_leaf:
        return lambda result: (result,) if isinstance(result, torch.Tensor) else None
    shape = _numbered(structure, count)
    if type(shape) is tuple and shape == tuple(range(count)):
        # A named tuple is another structure, so its type must be tuple itself.
        return lambda result: result if type(result) is tuple and len(result) == count else None
    if type(shape) is dict and all(type(number) is int for number in shape.values()):
        # In the order of the leaves: JAX sorts the keys of a dict.
        names = sorted(shape, key=shape.__getitem__)
        return lambda result: (
            [result[name] for name in names]
            if type(result) is dict and result.keys() == shape.keys()
            else None
        )
    if structure.inner:
        return lambda result: None  # dataclasses: taken apart and compared in `_checked`
    treedef = structure.treedef

    def unpack(result: Any) -> Sequence[Any] | None:
        leaves, found = jax.tree_util.tree_flatten(result)
        return leaves if found == treedef else None

    return unpack


def _checked(result: Any, structure: Structure, label: str, advice: str) -> list[Any]:
    leaves, found = trees.flatten(result)
    if found != structure:
        raise OutputError(
            f"{label}: expected results of the structure {structure}, planned when tracing; got "
            f"{found}. The structure must follow from the arguments' shapes and static values."
            f"{advice}",
            callable_name=label,
            differs=True,
            containers=True,
        )
    return leaves
