"""What a torch function closes over and may change between calls.

A captured gradient graph holds the function as it was: a module's training flags, which
parameters it has, the Python numbers in closure cells and globals. `ClosureState.key()` tells
when any of these has changed, so that a new plan is made instead of using a stale graph.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import torch

_PLAIN = (bool, int, float, complex, str, type(None))


class ClosureState:
    """The changeable surroundings of one function.

    Values inside other objects (attributes, lists) are not followed: like ``jax.jit``, a
    captured graph keeps those as they were when it was traced.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._cells: list[Any] = []
        self._globals: list[tuple[dict[str, Any], str]] = []
        self.modules: list[torch.nn.Module] = []
        self._look_at(function)

    def key(self) -> Hashable:
        """Equal as long as nothing that can be seen from here has changed. Cheap."""
        if not self.modules and not self._cells and not self._globals:
            return ()
        flags = tuple(part.training for module in self.modules for part in module.modules())
        values = [_plain_value(cell) for cell in self._cells]
        values += [_plain(names.get(name)) for names, name in self._globals]
        return flags, tuple(values)

    def tensors(self) -> tuple[int, ...]:
        """Identities of the modules' parameters and buffers: another tensor is another number."""
        found: list[int] = []
        for module in self.modules:
            found += [id(tensor) for tensor in module.parameters()]
            found += [id(tensor) for tensor in module.buffers()]
        return tuple(found)

    def _look_at(self, function: Any) -> None:
        function = inspect.unwrap(function) if callable(function) else function
        if isinstance(function, functools.partial):
            for value in (function.func, *function.args, *function.keywords.values()):
                self._look_at(value)
        elif isinstance(function, torch.nn.Module):
            if function not in self.modules:
                self.modules.append(function)
        elif inspect.ismethod(function):
            self._look_at(function.__self__)
            self._look_at(function.__func__)
        elif inspect.isfunction(function):
            self._look_into(function)

    def _look_into(self, function: Any) -> None:
        for cell in function.__closure__ or ():
            value = _cell_value(cell)
            if isinstance(value, torch.nn.Module):
                self._look_at(value)
            elif isinstance(value, _PLAIN):
                self._cells.append(cell)
        names = function.__globals__
        for name in function.__code__.co_names:
            value = names.get(name)
            if isinstance(value, torch.nn.Module):
                self._look_at(value)
            elif name in names and isinstance(value, _PLAIN):
                self._globals.append((names, name))


class StaleClosureError(RuntimeError):
    """A compiled gradient belongs to a function whose surroundings have changed since."""


class ClosureGuard:
    """Refuses to run a captured graph once the function's surroundings have changed."""

    def __init__(self, state: ClosureState) -> None:
        self._state = state
        self._key = state.key()
        self._tensors = state.tensors()

    @property
    def holds(self) -> bool:
        """Whether nothing has changed."""
        return self._state.key() == self._key and self._state.tensors() == self._tensors

    def check(self) -> None:
        """Raise StaleClosureError if the captured graph is out of date."""
        if self.holds:
            return
        raise StaleClosureError(
            "a module that the function uses was switched between train() and eval(), a "
            "parameter was replaced by another tensor, or a Python value that it reads has "
            "changed since this gradient was traced. Call the gradient function again without "
            "the old jit (or clear it with `jitted.clear_cache()`), so that it is traced anew."
        )


def _cell_value(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return _plain


def _plain_value(cell: Any) -> Any:
    return _plain(_cell_value(cell))


def _plain(value: Any) -> Any:
    # The type keeps 1, 1.0 and True apart; the text keeps 0.0 and -0.0 apart.
    return (type(value), repr(value)) if isinstance(value, _PLAIN) else id(value)
