"""The ways in which a function was called, as many as are to be kept."""

from __future__ import annotations

import textwrap
import threading
import warnings
from collections.abc import Hashable, Iterator
from typing import Any

from ..call_site import caller_level
from ..config import settings
from ..errors import BridgeWarning
from ..torchside.handler.torch_context import TorchContext
from .arguments.sort_leaves import ARRAY, Leaves
from .call_planner import Planner
from .pytrees import trees
from .way_of_calling import WayOfCalling


class KeptWays:
    """A `WayOfCalling` for each structure of arguments, static values and state of a closure.

    A static value that differs in every call would make one each time, with its plans, ops
    and compiled programs. The oldest goes that was not used since the last one went.

    Attributes:
        quick: The same by keys that cost little, for everyday calls.
    """

    def __init__(self, planner: Planner) -> None:
        self.quick: dict[Any, WayOfCalling] = {}
        self._planner = planner
        self._ways: dict[Any, WayOfCalling] = {}
        # Makes one object of one way of calling, whichever thread comes first.
        self._lock = threading.RLock()
        self._told = False

    def __len__(self) -> int:
        return len(self._ways)

    def __iter__(self) -> Iterator[WayOfCalling]:
        return iter(self._ways.values())

    def find(self, leaves: Leaves, context: TorchContext, state: Hashable) -> WayOfCalling:
        """What stands for a way of calling; made if there is none.

        Args:
            leaves: Structure and static values.
            context: Torch's settings.
            state: That of what the function closes over.
        """
        key = (leaves.key, context, state)
        way = self._ways.get(key)
        if way is None:
            words = ""
            with self._lock:
                way = self._ways.get(key)
                if way is None:
                    way = WayOfCalling(self._planner, leaves)
                    last = next(reversed(self._ways.items()), None)
                    if self._make_room() and last is not None and not self._told:
                        self._told = True
                        words = self._changing(*last, key)
                    self._ways[key] = way
            if words:
                self._tell(words)
        return way

    def _make_room(self) -> bool:
        """Whether one had to go."""
        most, went = settings.most_plans, False
        while most is not None and len(self._ways) >= max(most, 1):
            key, way = next(iter(self._ways.items()))
            del self._ways[key]
            if way.used:
                # Once more around, behind all others.
                way.used = False
                self._ways[key] = way
                continue
            went = True
        if went:
            # Also of those that went while another thread was about to note their keys.
            alive = {id(way) for way in self._ways.values()}
            for known in [known for known, one in list(self.quick.items()) if id(one) not in alive]:
                self.quick.pop(known, None)
        return went

    def _changing(self, last: tuple[Any, ...], way: WayOfCalling, key: tuple[Any, ...]) -> str:
        """What differs between two ways of calling, and what to do about it."""
        (leaves, _, state), (own, _, own_state) = last, key
        if leaves[0] != own[0]:
            return "the structure of the arguments. Pass arrays of one structure, padded if need be"
        paths = way.paths() if leaves != own else []
        changed = [
            f"`{trees.path_text(path)}` ({_value(before)}, now {_value(after)})"
            for path, before, after in zip(paths, leaves[1:], own[1:], strict=False)
            if before != after
        ]
        if not changed and state != own_state:
            changed = [f"`{name}`" for name in self._planner.changed_around(state, own_state)]
            changed = changed or ["what it closes over"]
        if not changed:
            return "what torch has set, such as its default dtype. Set it once"
        array = "an array (`jnp.asarray(value)`), whose value is no part of a plan"
        return f"{' and '.join(changed)}. Pass it as {array}"

    def _tell(self, words: str) -> None:
        warnings.warn(
            f"{self._planner.label}: of {settings.most_plans} ways of calling it the oldest are "
            "now dropped, and planned anew (some 30 ms) if they come back. What differs from call "
            f"to call is {words}; or raise `jaxtorch_bridge.settings.most_plans`.",
            BridgeWarning,
            stacklevel=caller_level(),
        )


def _value(leaf: Any) -> str:
    # As `sort_leaves` has it: a type and what tells values of it apart.
    return "an array" if leaf is ARRAY else textwrap.shorten(str(leaf[-1]), 60)
