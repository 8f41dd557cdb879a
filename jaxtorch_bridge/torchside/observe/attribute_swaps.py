"""What a torch function changes around it while it runs, also where it puts it back.

`torch.func.functional_call` gives a module other parameters for the length of a call. From one
thread nobody can tell; from two, each computes with the other's parameters. So the surroundings
are compared at every operation of the abstract evaluation, not only at its end.
"""

from __future__ import annotations

import operator
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from ..._compat.torch.modules import (
    HOOK_TABLES,
    caches_parametrizations,
    is_borrowed,
    own_parameters,
    running_modules,
)
from ..closure.closure_state import ClosureState
from ..closure.garbage import is_still
from ..closure.snapshot import CONTAINERS
from ..inspection.careful_access import entries, is_a, own_attributes, stored_items

# How many containers are compared at an operation on average. A function over hundreds of
# modules has thousands of operations; what is swapped stays swapped for many of them.
_PER_OPERATION = 200
_CACHE = "torch's cache of parametrizations"
_NAMES = {"_parameters": "parameters of", "_buffers": "buffers of"}


class SwapWatch:
    """Compares what a function closes over with what it was before the function ran.

    Attributes:
        changed: Words on what was other than before at some time.
        left: Words on what still was so when the function returned.
        used: Modules that ran, also those that no search from the function finds.
    """

    def __init__(self, closure: ClosureState) -> None:
        self.changed: dict[str, None] = {}
        self.left: dict[str, None] = {}
        self.used: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()
        # Whose code makes this watch, and then runs the function.
        self._caller = sys._getframe(1).f_code
        self._foreign: dict[int, tuple[weakref.ref[torch.nn.Module], str]] = {}
        self._cells = [(cell, _content(cell)) for cell in closure.assigned_cells]
        self._names = [(names, name, names.get(name)) for names, name in closure.assigned_names]
        self._parts = closure.parts()
        self._owns = closure.owns
        known = {id(part) for part in self._parts}
        self._known = known
        self._containers = [
            (words, container, _picture(container))
            for part in self._parts
            for words, container in _containers_of_part(part)
        ]
        for holder in closure.holders:
            words = f"a {type(holder).__name__} that it refers to"
            inner = holder if is_a(holder, CONTAINERS) else own_attributes(holder)
            self._containers.append((words, inner, _picture(inner)))
        self._stride = max(1, len(self._containers) // _PER_OPERATION)
        self._operations = 0

    def look(self) -> None:
        """Compare; called at every operation."""
        self._operations += 1
        self.look_at_modules()
        if caches_parametrizations():
            # Torch has one for all modules.
            self.left[_CACHE] = None
        if self._operations % self._stride == 0:
            self._compare(self.changed)

    def finish(self) -> None:
        """Compare once more, when the function has returned."""
        self._compare(self.left)
        self.changed |= self.left
        # A module that the function made for itself is gone, and was nobody else's business.
        if is_still(lambda: any(module() is not None for module, _ in self._foreign.values())):
            for module, words in self._foreign.values():
                if module() is not None:
                    self.changed[words] = None

    @property
    def everywhere(self) -> list[str]:
        """What it changes that belongs to torch as a whole."""
        return [_CACHE] if _CACHE in self.left else []

    def look_at_modules(self) -> None:
        """Note the modules that this thread is calling; called at every torch function."""
        for module in running_modules(self._caller):
            if self._owns(module):
                continue
            self.used.add(module)
            # Parameters that are no `Parameter` were put there for the call.
            if any(is_borrowed(tensor) for tensor in own_parameters(module).values()):
                words = f"parameters of `{type(module).__name__}`"
                if id(module) in self._known:
                    self.changed[words] = None
                else:
                    self._foreign[id(module)] = weakref.ref(module), words

    def _compare(self, found: dict[str, None]) -> None:
        for words, container, before in self._containers:
            if words not in found and not _same(_picture(container), before):
                found[words] = None
        for cell, value in self._cells:
            if _content(cell) is not value:
                found["a variable of the function around it"] = None
        for names, name, value in self._names:
            if names.get(name) is not value:
                found[f"the global `{name}`"] = None


def _containers_of_part(part: torch.nn.Module) -> Iterator[tuple[str, Any]]:
    kind = type(part).__name__
    yield f"attributes of `{kind}`", vars(part)
    for name, value in vars(part).items():
        if is_a(value, CONTAINERS) and name not in HOOK_TABLES:
            yield f"{_NAMES.get(name, 'attributes of')} `{kind}`", value


def _picture(container: Any) -> list[Any]:
    """What a container holds; kept alive, so that nothing else can take its identity."""
    if is_a(container, dict):
        return [part for item in stored_items(container) for part in item]
    return entries(container)


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None
