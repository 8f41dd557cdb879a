"""How results depend on some inputs, operation by operation: linearly or not. For torch 2.13.0."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..fake_tensors import is_fake
from ..storages import memory_key
from . import linear_ops as ops


class State(enum.IntEnum):
    """How a tensor depends on some inputs."""

    ZERO = 0  # nought, which is linear and constant
    LINEAR = 1
    CONSTANT = 2


class Other:
    """How a tensor depends on inputs in which it is not linear, or not known to be.

    Attributes:
        words: What makes it so.
        certain: It is not linear.
    """

    def __init__(self, words: str, *, certain: bool) -> None:
        self.words = words
        self.certain = certain


Dependence = State | Other


class LinearityWatch(TorchDispatchMode):
    """Follows how tensors depend on some inputs while a function runs on fakes.

    By memory, since functions write to views of it: what is written to a part of a tensor is taken
    together with what the rest holds.

    Attributes:
        cut: Something that depends on them was computed where autograd records nothing, or
            something else (a function with a backward of its own): a derivative need not be that
            of what is computed.
    """

    def __init__(self, linear: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found: dict[int, Dependence] = {_key(tensor): State.LINEAR for tensor in linear}
        # Memory that is given back would be somebody else's under the same number.
        self._alive: list[Any] = list(linear)
        self.cut = False

    def of(self, tensor: torch.Tensor) -> Dependence:
        """How a tensor depends on the inputs."""
        return self._found.get(_key(tensor), State.CONSTANT)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        call = _Call(func, args, kwargs, self.of)
        # Before it writes to any of these.
        found = call.dependence()
        if call.moving:
            # `detach` is transparent to values alone.
            self.cut |= not torch.is_grad_enabled() or call.name == "detach"
        before = {_key(tensor): self.of(tensor) for tensor in call.written}
        result = func(*args, **kwargs)
        for tensor in call.written:
            # What was in all of it counts only as far as the op has read it.
            rest = State.ZERO if _covers(tensor) else before[_key(tensor)]
            self._note(tensor, _joined(rest, call.result(0, tensor, found)))
        known = {_key(tensor) for tensor in (*call.written, *call.tensors)}
        for place, tensor in enumerate(_tensors(result)):
            # A view is what its memory is.
            if _key(tensor) not in known:
                self._note(tensor, call.result(place, tensor, found))
        return result

    def _note(self, tensor: torch.Tensor, state: Dependence) -> None:
        self._alive.append(tensor)
        self._found[_key(tensor)] = state


class _Call:
    """One op and what its arguments depend on."""

    def __init__(self, func: Any, args: Sequence[Any], kwargs: Any, of: Any) -> None:
        self._func, self._of, self._kwargs = func, of, kwargs
        # A higher-order operator has neither a schema nor overloads.
        self._known = isinstance(func, torch._ops.OpOverload) and func.namespace == "aten"
        self.name = ops.name_of(func)
        self._values = _by_position(func, args, kwargs) if self._known else [*args, kwargs]
        self.tensors = list(_tensors((args, kwargs)))
        self.written = _written(func, self._values)
        like = self._known and self.name in ops.MADE_LIKE
        self._states = [] if like else [of(tensor) for tensor in self.tensors]
        self.moving = any(
            state is State.LINEAR or isinstance(state, Other) for state in self._states
        )

    def dependence(self) -> Dependence:
        """How what it computes depends on the inputs."""
        if not self.moving:
            return State.ZERO if self._is_nought() else State.CONSTANT
        for state in self._states:
            if isinstance(state, Other):
                return state
        if not self._known:
            return Other(f"`{self._func}` is not known to be linear", certain=False)
        if self.name == "zero":
            return State.ZERO
        return self._rule()

    def result(self, place: int, tensor: torch.Tensor, found: Dependence) -> Dependence:
        """How one of its results does."""
        if place and (self.name in ops.LINEAR_IN_ONE or self.name == "native_dropout"):
            return State.CONSTANT
        if found is State.LINEAR and not (tensor.is_floating_point() or tensor.is_complex()):
            return Other(f"`{self.name}` makes {str(tensor.dtype)[6:]} of it", certain=True)
        return found

    def _is_nought(self) -> bool:
        if self.name in ops.NOUGHTS:
            return True
        if self.name == "scalar_tensor":
            return _is_nought(self._values[0])
        if self.name == "lift_fresh":
            # Of numbers that stand in the function's code.
            return not is_fake(self.tensors[0]) and _is_all_nought(self.tensors[0])
        if self.name in ("full", "full_like", "new_full", "fill"):
            place = {"new_full": 2}.get(self.name, 1)
            return len(self._values) > place and _is_nought(self._values[place])
        keeps = self.name in ops.FIRST or self.name in ops.TOGETHER or self.name in ops.PRODUCTS
        tensors = bool(self._states) and all(state is State.ZERO for state in self._states)
        return keeps and tensors and not any(map(self._adds, ops.TOGETHER.get(self.name, ())))

    def _moves(self, place: int | None) -> bool:
        return any(self._of(tensor) is State.LINEAR for tensor in self._at(place))

    def _at(self, place: int | None) -> list[torch.Tensor]:
        if place is None or place >= len(self._values):
            return []
        return list(_tensors(self._values[place]))

    def _adds(self, place: int | None) -> bool:
        """Whether an argument is neither linear nor nought."""
        if place is None or place >= len(self._values):
            return False
        tensors = self._at(place)
        if tensors:
            return any(self._of(tensor) is State.CONSTANT for tensor in tensors)
        value = self._values[place]
        return value is not None and not _is_nought(value)

    def _rule(self) -> Dependence:
        name = self.name
        places = {place for place in range(len(self._values)) if self._moves(place)}
        if name in ops.PRODUCTS:
            return self._product(places, *ops.PRODUCTS[name])
        if name in ops.LINEAR_IN_ONE:
            return self._linear_if(places == {ops.LINEAR_IN_ONE[name]})
        if name in ops.TOGETHER:
            together = ops.TOGETHER[name]
            # What is written over whole is not read.
            read = (
                together[1:] if name in ("copy", "fill") and _covers(self._values[0]) else together
            )
            if places <= set(together) and any(map(self._adds, read)):
                return self._constant()
            # Of `scatter`: it may multiply.
            return self._linear_if(places <= set(together) and "reduce" not in self._kwargs)
        if name in ops.FIRST or self._is_backward():
            rounds = name == "div" and self._kwargs.get("rounding_mode") is not None
            return self._linear_if(places == {0} and not rounds)
        if name in ops.NOT_LINEAR or torch.Tag.pointwise in self._func.tags:
            return self._linear_if(False)
        return Other(f"`{name}` is not known to be linear", certain=False)

    def _product(self, places: set[int], one: int, other: int, added: int | None) -> Dependence:
        if {one, other} <= places:
            return Other(f"`{self.name}` multiplies two things that depend on it", certain=True)
        if not places <= {one, other, added}:
            return self._linear_if(False)
        if self._adds(added) and self._kwargs.get("beta", 1) != 0:
            return self._constant()
        factors = [self._of(tensor) for place in (one, other) for tensor in self._at(place)]
        return (
            State.LINEAR
            if min(factors, default=State.CONSTANT) < State.CONSTANT
            else self._constant()
        )

    def _is_backward(self) -> bool:
        """Part of a derivative, which is linear in what comes first."""
        first = self._func._schema.arguments[:1]
        return "backward" in self.name and bool(first) and "grad" in first[0].name

    def _linear_if(self, true: bool) -> Dependence:
        return State.LINEAR if true else Other(f"`{self.name}` is not linear", certain=True)

    def _constant(self) -> Dependence:
        return Other(f"`{self.name}` adds a constant", certain=True)


def _key(tensor: torch.Tensor) -> int:
    # Sparse tensors have no memory of their own.
    return memory_key(tensor) or id(tensor)


def _joined(one: Dependence, other: Dependence) -> Dependence:
    """Of memory that holds both."""
    if isinstance(one, Other) or one is other:
        return one
    if isinstance(other, Other) or one is State.ZERO:
        return other
    if other is State.ZERO:
        return one
    return Other("a part of a tensor depends on it, and another part is a constant", certain=False)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _is_nought(value: Any) -> bool:
    return isinstance(value, (int, float, complex)) and value == 0


def _is_all_nought(tensor: torch.Tensor) -> bool:
    with _disable_current_modes():
        return not bool(tensor.count_nonzero())


def _by_position(func: Any, args: Sequence[Any], kwargs: Any) -> list[Any]:
    """Arguments in the order of the schema, with those given by name."""
    names = [argument.name for argument in func._schema.arguments]
    return [*args, *(kwargs.get(name) for name in names[len(args) :])]


def _written(func: Any, values: Sequence[Any]) -> list[torch.Tensor]:
    """Tensors that an op writes to."""
    schema = getattr(func, "_schema", None)
    found: list[torch.Tensor] = []
    for argument, value in zip(schema.arguments if schema else (), values, strict=False):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors(value)
    return found


def _covers(tensor: Any) -> bool:
    """Whether a tensor is all of its memory, each element once."""
    if not isinstance(tensor, torch.Tensor):
        return False
    size = tensor.untyped_storage().nbytes()
    whole = tensor.numel() * tensor.element_size() == size
    steps = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    expected = 1
    for step, length in steps:
        if length > 1 and step != expected:
            return False
        expected *= length
    return whole
