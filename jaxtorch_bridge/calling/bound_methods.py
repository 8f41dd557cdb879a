"""The callables that a decorated method makes for instances."""

from __future__ import annotations

import functools
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch

MOST_INSTANCES = 32


class BoundCallables(dict[int, Any]):
    """One for each instance: those of the last few, and those that somebody else holds.

    An executable holds the function that it calls, and that its instance, where Python's garbage
    collector cannot see it. So plans that an instance kept for itself would keep it for ever, and
    a weak mapping from instances to plans as well. Kept here, they go when others come, and all of
    them with the method: what replaces it begins anew.

    By the instance's number: it may be equal to others, or have no hash. The number is nobody
    else's as long as its callable lives, which holds the instance.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._lock = threading.Lock()

    def find(self, instance: Any, make: Callable[[], Any]) -> Any:
        """The callable of an instance, which is the latest from now on; made if there is none."""
        number = id(instance)
        with self._lock:
            found = self.pop(number, None) or self._alive.get(number)
            if found is not None:
                self[number] = found
        if found is None:
            # Without the lock, which is held by nobody who runs code of the user's.
            made, dropped = make(), None
            with self._lock:
                # Another thread may have made one meanwhile.
                found = self[number] = self._alive.setdefault(number, made)
                if len(self) > MOST_INSTANCES:
                    dropped = self.pop(next(iter(self)))
            del dropped
        return found


def is_bindable(function: Any) -> bool:
    """Whether it becomes a method of instances where it is an attribute of their class."""
    return not isinstance(function, (types.BuiltinFunctionType, torch.nn.Module, type))


def bound_function(function: Any, instance: Any, owner: type | None) -> Callable[..., Any]:
    """The torch function for one instance, as Python binds it."""
    binds = getattr(type(function), "__get__", None)
    if binds is None:
        # Of an object with `__call__`.
        return functools.partial(function, instance)
    found: Callable[..., Any] = binds(function, instance, owner)
    return found
