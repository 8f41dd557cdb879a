"""The callables that decorated methods make for one instance."""

from __future__ import annotations

from typing import Any


class BoundMethods(dict[int, Any]):
    """The callables bound to one instance; copies and pickles start without them."""

    def __init__(self, owner: Any = None) -> None:
        super().__init__()
        self.owner = owner

    def __reduce__(self) -> Any:
        return BoundMethods, ()
