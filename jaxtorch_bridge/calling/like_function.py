"""What Python's and JAX's tools ask of a function: names, parameters, annotations, its origin."""

from __future__ import annotations

import functools
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..torchside.closure.function_identity import name_of

_ANYTHING = inspect.Signature(
    [
        inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
        inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
    ]
)
# What `functools.update_wrapper` copies, but for the annotations.
_NAMES = ("__module__", "__name__", "__qualname__", "__doc__")
# Made anew, or no business of a copy's.
_NOT_COPIED = frozenset(("torch", "spec", "__wrapped__", "__annotations__"))


def described(function: Callable[..., Any]) -> Callable[..., Any]:
    """What has the parameters of a call: ``forward`` of a module, whose own take anything."""
    return function.forward if isinstance(function, torch.nn.Module) else function


def signature_of(function: Callable[..., Any], extra: Sequence[str] = ()) -> inspect.Signature:
    """The parameters of a call, or ``*args, **kwargs`` where Python cannot tell.

    Args:
        function: The torch function.
        extra: Keywords that a call takes besides, None if they are left out.
    """
    try:
        found = inspect.signature(described(function))
    except (TypeError, ValueError):  # builtins, and what TorchScript runs
        found = _ANYTHING
    return with_keywords(found, extra)


def with_keywords(signature: inspect.Signature, names: Sequence[str]) -> inspect.Signature:
    """The same with more keywords, as far as it has none of these names."""
    if not names:
        return signature
    parameters = list(signature.parameters.values())
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in names
        if name not in signature.parameters
    ]
    last = len(parameters)
    if parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:
        last -= 1
    return signature.replace(parameters=[*parameters[:last], *added, *parameters[last:]])


def as_bound(signature: inspect.Signature, args: Any, kwargs: Any) -> inspect.Signature:
    """Where calls must be like one call: the parameters that this one gives, and no others."""
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:
        return signature
    empty = inspect.Parameter.empty
    parameters = signature.parameters.values()
    return signature.replace(
        parameters=[each.replace(default=empty) for each in parameters if each.name in given]
    )


def take_names(target: Any, function: Callable[..., Any]) -> None:
    """Give a callable the names and annotations of the function that it runs.

    In its `__dict__`, as `functools.wraps` does: its class has names of its own.
    """
    named, origin = False, function
    while isinstance(origin, functools.partial):
        origin = origin.func
    for attribute in _NAMES:
        # Where a partial is made tells nothing of who may change its function; it counts as
        # Python's own.
        source = function if attribute == "__module__" else origin
        try:
            value = getattr(source, attribute, None)
        except Exception:  # of an object that raises something else for what it has not
            value = None
        if value is not None:
            setattr(target, attribute, value)
            named |= attribute == "__name__"
    if not named:
        target.__qualname__ = name_of(function)
        target.__name__ = target.__qualname__.rpartition(".")[2]
    target.__annotations__ = _annotations_of(function, origin)
    target.__wrapped__ = function


def _annotations_of(function: Callable[..., Any], origin: Any) -> dict[str, Any]:
    source = described(origin)
    try:
        # Where `__wrapped__` does not lead to the names that texts stand for, they are looked up.
        if source is function:
            return getattr(source, "__annotations__", None) or {}
        found = typing.get_type_hints(source)
        names = {*signature_of(function).parameters, "return"}
    except Exception:  # a name that is there for type checkers only, say
        return {}
    return {name: hint for name, hint in found.items() if name in names}


class OfInstances:
    """An attribute that is worked out for instances, and that their class does not have.

    A property would be found on the class as well, where `inspect` would take it for the class's
    own.
    """

    def __init__(self, find: Callable[[Any], Any]) -> None:
        self._find = find

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """What was found.

        Raises:
            AttributeError: On the class, or where the function has none.
        """
        if instance is None:
            raise AttributeError("an attribute of instances")
        return self._find(instance)


class LikeFunction:
    """A callable that runs the torch function ``self.torch``; see `take_names`.

    Its class keeps in slots what is nobody else's business: `functools.wraps` copies the rest.
    """

    __slots__ = ()

    torch: Callable[..., Any]

    __signature__ = OfInstances(lambda self: self._signature())
    __defaults__ = OfInstances(lambda self: described(self.torch).__defaults__)
    __kwdefaults__ = OfInstances(lambda self: described(self.torch).__kwdefaults__)

    def _signature(self) -> inspect.Signature:
        """What a call takes."""
        return signature_of(self.torch)

    def _made_of(self) -> tuple[Any, ...]:
        """What its class makes another one of."""
        raise NotImplementedError

    def __reduce__(self) -> Any:
        """Pickle and copy by name where the name leads here, otherwise by what it is made of."""
        found: Any = sys.modules.get(getattr(self, "__module__", ""))
        name = getattr(self, "__qualname__", "")
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:
            return name
        if inspect.ismethod(self.torch):
            # As Python's own methods.
            owner, name = self.torch.__self__, self.torch.__name__
            found = getattr(owner, name, None)
            if isinstance(found, type(self)) and found.torch == self.torch:
                return getattr, (owner, name)
        # Names that were changed, and whatever else was set on it.
        state = {name: value for name, value in vars(self).items() if name not in _NOT_COPIED}
        return type(self), self._made_of(), state
