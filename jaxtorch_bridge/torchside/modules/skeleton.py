"""A module's structure without its tensors, to be filled for the length of one call.

The original module is read once and never touched again. Each call fills a skeleton of its own,
so that calls on several threads do not meet.
"""

from __future__ import annotations

import collections
import functools
import operator
import sys
import types
import weakref
from collections.abc import Callable, Collection, Iterator, Set
from typing import Any

import torch

from ..._compat.torch.autograd_graph import leaves_behind
from ..._compat.torch.modules import OF_EVERY_MODULE, own_buffers, own_parameters
from ..._compat.torch.storages import reserve_storage_key
from ...errors import ModuleError
from ..handler.native_module import native
from ..inspection.bytecode_names import is_of_framework
from ..inspection.careful_access import is_a
from ..inspection.reachable_objects import memory_of
from .container_pictures import Container, Picture
from .held_objects import caches_of, held_in, is_users_object, items_of
from .named_tensors import named_tensors
from .structure_copy import attributes_of, object_like, set_attributes, structure_of

# Containers in containers: how deep other references to a parameter are looked for.
_DEPTH = 3
_KINDS = (dict, collections.OrderedDict, list)
_Places = list[tuple[Any, Any, "Slot"]]


class Slot:
    """Stands in a skeleton where a tensor of the module belongs."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __repr__(self) -> str:
        return f"Slot({self.index})"


class Skeleton:
    """One copy of the structure; used by one call at a time.

    Attributes:
        module: The copy.
        parts: All its parts with their names.
        apart: What parts hold that is this copy's alone, by `Held.key`.
    """

    def __init__(self, module: torch.nn.Module, apart: frozenset[tuple[str, str]]) -> None:
        self.module = module
        self.apart = apart
        self.parts = list(module.named_modules())
        self._layers = [part for _, part in self.parts]
        places: _Places = []
        homes: dict[int, tuple[Any, Any]] = {}
        for _, part in self.parts:
            for place, key, slot in _put_into_part(part, _is_slot):
                places.append((place, key, slot))
                # Buffers are read back from where the module's own code assigns them.
                if place is own_buffers(part) or slot.index not in homes:
                    homes[slot.index] = (place, key)
                if place is own_parameters(part) and not hasattr(type(part), key):
                    # As an attribute of its own it is found at once. Module looks in its
                    # tables last, in Python code, which costs more than all of this.
                    places.append((vars(part), key, slot))
        self._homes = homes
        self._watched: list[Container] | None = None
        self._containers = [container for container, _, _ in places]
        self._keys = [key for _, key, _ in places]
        self._slots = [slot for _, _, slot in places]
        self._indices = [slot.index for slot in self._slots]
        self._every = list(range(len(self._slots)))
        # In C: this is what every parameter costs in every call.
        self._fill = native().fill_module
        # What code of a backward refers to if it is to run these layers again.
        self._reachable = [*self._layers, *self._containers, *self._leading_on()]

    def fill(self, tensors: list[torch.Tensor]) -> None:
        """Put in the tensors, by their indices."""
        self._fill(self._containers, self._keys, tensors, self._indices)

    def read(self, index: int) -> Any:
        """What is there now for one index: the tensor, or what the module put in its place."""
        container, key = self._homes[index]
        return container.get(key) if isinstance(container, dict) else container[key]

    def empty(self) -> None:
        """Take the tensors out again."""
        # Or the skeleton would keep XLA's memory when the call has ended: an escape.
        self._fill(self._containers, self._keys, self._slots, self._every)

    def references(self) -> list[int]:
        """How often others refer to its parts, their tables, and what leads to them."""
        counts = list(map(sys.getrefcount, self._reachable))
        counts += map(weakref.getweakrefcount, self._layers)
        return counts

    def is_referred_to(self, before: list[int]) -> bool:
        """Whether they do so more often than before: code that may run the parts again."""
        return any(map(operator.gt, self.references(), before))

    def _leading_on(self) -> list[Any]:
        """This copy's own attributes and objects that lead to a layer: methods, lists of layers."""
        layers = set(map(id, self._layers))

        def leads(value: Any) -> bool:
            if is_a(value, types.MethodType):
                return id(value.__self__) in layers
            if is_a(value, functools.partial):
                return any(map(leads, (value.func, *value.args, *value.keywords.values())))
            if type(value) in (list, tuple, dict, set):
                items = value.values() if type(value) is dict else value
                return any(id(item) in layers for item in items)
            return id(value) in layers

        found = [
            value
            for part in self._layers
            for name, value in vars(part).items()
            if name not in OF_EVERY_MODULE and id(value) not in layers and leads(value)
        ]
        # Who holds a layer of this copy is a copy itself.
        return found + [
            held.owner
            for held in held_in(self.parts)
            if held.key in self.apart or any(leads(value) for _, value in items_of(held.container))
        ]

    def picture(self, only: Set[tuple[str, str]] | None = None) -> Picture:
        """Shallow copies of what the parts' containers hold, while it is filled.

        Args:
            only: Name of the part and of the container, for those that are wanted.
        """
        if self._watched is None:
            # Once: what a call puts in the place of a container is taken out again.
            self._watched = [
                Container(part_name, name, container, is_of_framework(type(part)))
                for part_name, part in self.parts
                for name, container, _ in list(_containers(part))
            ]
            self._watched += [
                Container(*held.key, held.container, False, held) for held in held_in(self.parts)
            ]
        if only is None:
            return Picture(self._watched)
        return Picture([one for one in self._watched if (one.part, one.name) in only])


class Template:
    """What skeletons are copied from: the module's structure as it was when this was made.

    Attributes:
        named: Of each parameter, sorted by name, then of each buffer. Slots count in this order.
        tensors: The parameters and buffers themselves, in the same order, until `forget`.
        caches: Of methods, in which one call could leave results for another.
        constants: Memory of other tensors that the module keeps, and where.
        computed: Memory of those that were computed from parameters, and where.
        own: Memory of its parameters and buffers: name, and a
            reference that lets no other memory take its number.
        module: The copy of the structure, with slots in place of tensors.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        found = named_tensors(module)
        self.named = [named for named, _ in found]
        self.tensors = [tensor for _, tensor in found]
        self.own = {
            # A tensor of a later call may lie where the original's memory was, once that is gone.
            memory_of(tensor): (named.name, reserve_storage_key(tensor))
            for named, tensor in found
            if memory_of(tensor) is not None
        }
        self.caches = caches_of(module.named_modules())
        self.constants: dict[Any, str] = {}
        self.computed: dict[Any, str] = {}
        # By identity, so that a tensor which several layers share has one slot.
        indices = {id(tensor): index for index, tensor in enumerate(self.tensors)}

        def slot_of(value: Any) -> Slot | None:
            index = indices.get(id(value))
            return None if index is None else Slot(index)

        self.module = structure_of(module)
        self._apart: frozenset[tuple[str, str]] = frozenset()
        self.hold_apart({held.key for held in held_in(module.named_modules()) if held.plain})
        for name, part in self.module.named_modules():
            _put_into_part(part, slot_of)
            for path, tensor in _tensors_kept(part):
                self._note_constant(f"{name}.{path}" if name else path, tensor, indices)
        for held in held_in(self.module.named_modules()):
            for key, value in items_of(held.container):
                if isinstance(value, torch.Tensor):
                    self._note_constant(held.words(key), value, indices)

    def _note_constant(self, where: str, tensor: torch.Tensor, parameters: Collection[int]) -> None:
        memory = memory_of(tensor)
        self.constants.setdefault(memory, where)
        # It would keep the value of the parameters as they were when the module was taken.
        if any(id(leaf) in parameters for leaf in leaves_behind(tensor)):
            self.computed.setdefault(memory, where)

    def forget(self) -> None:
        """Let go of the original's tensors."""
        self.tensors = []

    def skeleton(self, train: bool | None) -> Skeleton:
        """A fresh one.

        Args:
            train: The mode, as ``module.train()`` and ``module.eval()`` set it, which layers may
                have in ways of their own; None: as it was.

        Raises:
            ModuleError: A layer does more than that with its mode.
        """
        # Read once: another thread may call `hold_apart` meanwhile.
        apart = self._apart
        copy = self._copy(apart)
        if train is not None:
            words = "train" if train else "eval"
            try:
                getattr(copy, words)()
            except Exception as error:
                raise ModuleError(
                    f"{type(copy).__name__}: expected `{words}()` of its layers to set modes only; "
                    f"one of them also works on tensors ({type(error).__name__}: {error}). Call "
                    f"`module.{words}()` before from_module, and leave `train=` out."
                ) from error
        # With what held when it was copied, and not what may hold by now.
        return Skeleton(copy, apart)

    def hold_apart(self, keys: Set[tuple[str, str]]) -> None:
        """Let this and all later skeletons have copies of their own of what parts hold.

        Args:
            keys: By `Held.key`.
        """
        apart = self._apart | frozenset(keys)
        # The template itself shared them with the original module until now.
        self.module = self._copy(apart)
        self._apart = apart

    def _copy(self, apart: frozenset[tuple[str, str]]) -> torch.nn.Module:
        parts = self.module.named_modules()
        owners = [held.owner for held in held_in(parts) if held.key in apart] if apart else []
        return structure_of(self.module, owners)


def _containers(part: torch.nn.Module) -> Iterator[tuple[str, Any, int]]:
    """The dicts and lists that hold a part's state: name, and how deep to look into them."""
    yield "", vars(part), 0
    for name, value in vars(part).items():
        if type(value) in _KINDS:
            yield name, value, _DEPTH


def _put_slots(container: Any, slot_of: Callable[[Any], Slot | None], depth: int) -> _Places:
    """Put slots where they belong in a container, and say where."""
    places: _Places = []
    for key, value in items_of(container):
        slot = slot_of(value)
        if slot is not None:
            container[key] = slot
            places.append((container, key, slot))
        elif depth and type(value) in _KINDS:
            # Containers in containers may be others' as well.
            own = value.copy()
            inner = _put_slots(own, slot_of, depth - 1)
            if inner:
                container[key] = own
                places += inner
        elif depth and is_users_object(value):
            places += _put_into_object(container, key, slot_of, depth)
    return places


def _put_into_part(part: torch.nn.Module, slot_of: Callable[[Any], Slot | None]) -> _Places:
    """Put slots where they belong in what a part holds, and say where."""
    places: _Places = []
    # A list: what is put in changes the attributes that are gone through.
    for _, container, depth in list(_containers(part)):
        places += _put_slots(container, slot_of, depth)
    for name, value in list(vars(part).items()):
        if is_users_object(value):
            places += _put_into_object(vars(part), name, slot_of, _DEPTH)
    return places


def _put_into_object(
    container: Any, key: Any, slot_of: Callable[[Any], Slot | None], depth: int
) -> _Places:
    """The same for an object, which is copied first: others may have it as well."""
    value = container[key]
    own = dict(vars(value))
    inner = _put_slots(own, slot_of, depth - 1)
    if not inner:
        return []
    made = object_like(value)
    set_attributes(made, {**attributes_of(value), **own})
    container[key] = made
    return [(vars(made) if place is own else place, *rest) for place, *rest in inner]


def _is_slot(value: Any) -> Slot | None:
    return value if type(value) is Slot else None


def _tensors_kept(part: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that are neither parameters nor buffers."""
    for name, value in vars(part).items():
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, (dict, list, tuple)):
            items = value.items() if isinstance(value, dict) else enumerate(value)
            yield from (
                (f"{name}[{key!r}]", item) for key, item in items if isinstance(item, torch.Tensor)
            )
