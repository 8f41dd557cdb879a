"""Whether a graph still stands for its function, and what has changed if it does not."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import torch

from ..._compat.torch.modules import is_training
from ...errors import StaleClosureError
from ..inspection.careful_access import is_a
from .closure_state import ClosureState

_PLAIN = (bool, int, float, complex, str, type(None))
# (what it is, whose, its name): what it was
_Named = dict[tuple[str, str, str], Hashable]


class ClosureGuard:
    """Refuses to run a captured graph once the function's surroundings have changed.

    Args:
        state: What the function closes over.
        held: Whether what objects and containers hold counts, which runs of the function's own code
            read anew.
    """

    def __init__(self, state: ClosureState, *, held: bool = True) -> None:
        self._state = state
        self._key = state.key()
        self._details = state.details()
        self._held = state.held() if held else None
        self._named = _named(state)

    @property
    def holds(self) -> bool:
        """Whether nothing has changed that the function's own calls would see."""
        return self._runs_on and (self._held is None or self._state.holds_same(self._held))

    @property
    def _runs_on(self) -> bool:
        # Compiled programs keep what objects held when they were traced.
        return self._state.key() == self._key and self._state.details() == self._details

    def check(self) -> None:
        """Raise StaleClosureError if the captured graph is out of date."""
        if self._runs_on:
            return
        what = self.change or "what the function closes over was changed"
        raise StaleClosureError(
            f"{what} since this derivative was traced, and it holds the function as it was. Take "
            "the derivative again."
        )

    @property
    def change(self) -> str:
        """What has changed, in words; empty if it has no name."""
        now = _named(self._state)
        for place, value in now.items():
            before = self._named.get(place, value)
            if before != value:
                return _words(*place, before, value)
        if now.keys() != self._named.keys():
            kind, owner, name = next(iter(now.keys() ^ self._named.keys()))
            done = "added" if (kind, owner, name) in now else "taken away"
            return f"{kind} `{name or owner}` was {done}"
        return ""


def _named(state: ClosureState) -> _Named:
    found = {("the Python value", "", name): value for name, value in state.named_values()}
    with state.locks:
        for module in state.modules:
            found.update(_named_in(module))
    return found


def _named_in(module: torch.nn.Module) -> Iterator[tuple[tuple[str, str, str], Hashable]]:
    whole = type(module).__name__
    for name, part in module.named_modules():
        yield ("the module", whole, name), is_training(part)
    for name, parameter in module.named_parameters():
        yield ("the parameter", whole, name), id(parameter)
    for name, buffer in module.named_buffers():
        yield ("the buffer", whole, name), id(buffer)
    for name, part in module.named_modules():
        for attribute, value in vars(part).items():
            if attribute != "training" and is_a(value, _PLAIN):
                place = f"{name}.{attribute}" if name else attribute
                yield ("the attribute", whole, place), (type(value), repr(value))


def _words(kind: str, owner: str, name: str, before: Any, now: Any) -> str:
    of = f" of `{owner}`" if owner and name else ""
    if kind == "the module":
        return f"the module `{name or owner}`{of} was switched to {'train' if now else 'eval'}()"
    if kind in ("the parameter", "the buffer"):
        return f"{kind} `{name}`{of} was replaced by another tensor"
    if is_a(before, tuple) and is_a(now, tuple):
        return f"{kind} `{name}`{of} changed from {before[1]} to {now[1]}"
    return f"{kind} `{name}`{of} was replaced by another object"
