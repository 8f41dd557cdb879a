"""What the containers of a module's parts hold at one time, and what a call has changed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..handler.native_module import native
from .held_objects import Held, items_of, put_into
from .named_tensors import plain_name

_TABLES = ("_parameters", "_buffers")
ABSENT = object()


@dataclass(frozen=True, eq=False)
class Container:
    """A container of a module's part.

    Attributes:
        part: The part's name.
        name: The attribute that the container is; empty for the attributes themselves.
        container: The container.
        of_library: Whether the part is one of torch's own layers.
        held: What it is the state of, where that is not a part.
    """

    part: str
    name: str
    container: Any
    of_library: bool
    held: Held | None = None

    def is_state(self, key: Any, value: Any) -> bool:
        """Whether a change may be meant for the next call, rather than be a cache or a flag."""
        if self.of_library:
            # Torch's own layers only keep what they work out anew.
            return False
        # A flag may be set anew by every call; a number counts something.
        if isinstance(value, (int, float, complex, torch.Tensor)) and not isinstance(value, bool):
            return True
        names = (self.name, str(key)) if self.held or not self.name else (self.name,)
        return not any(name.startswith("_") for name in names)

    def words(self, key: Any) -> str:
        """What a person would call one entry."""
        if self.held is not None:
            return plain_name(self.held.words(key))
        inner = self.name if self.name and self.name not in _TABLES else ""
        last = f"{inner}[{key!r}]" if inner else str(key)
        return plain_name(f"{self.part}.{last}" if self.part else last)


class Picture:
    """What containers held: which of them a call has changed, and how to put that back."""

    def __init__(self, containers: Sequence[Container]) -> None:
        self._containers = containers
        self._raw = [one.container for one in containers]
        # In C: this is what every attribute costs in a call that may change it.
        self._before = native().items_of_each(self._raw)

    def changes(self) -> dict[Container, dict[Any, Any]]:
        """By container and key, what was added or given another object, `ABSENT` if removed."""
        return {
            self._containers[index]: _difference(self._pairs(index), self._raw[index])
            for index in native().changed_since(self._raw, self._before)
        }

    def put_back(self) -> None:
        """Let each container hold what it held."""
        for index in native().changed_since(self._raw, self._before):
            put_into(self._raw[index], self._pairs(index))

    def _pairs(self, index: int) -> list[tuple[Any, Any]]:
        items = self._before[index]
        if isinstance(self._raw[index], dict):
            return list(zip(items[::2], items[1::2], strict=True))
        return items_of(set(items) if isinstance(self._raw[index], set) else list(items))


def _difference(before: Sequence[tuple[Any, Any]], container: Any) -> dict[Any, Any]:
    then, now = dict(before), dict(items_of(container))
    return {
        key: now.get(key, ABSENT)
        for key in {**then, **now}
        if now.get(key, ABSENT) is not then.get(key, ABSENT)
    }
