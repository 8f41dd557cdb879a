"""A module's tensors as pytrees, by their names: nested or flat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from ..calling.pytrees.trees import flatten_with_paths
from ..errors import ModuleError

Names = Literal["nested", "flat"]


class NamedTree:
    """The form of one of a module's two pytrees.

    Args:
        kind: ``parameters`` or ``buffers``, for messages.
        names: Of the leaves, in the order in which values come and go.
        form: nested: a dict for every layer. flat: one dict by whole names.
        label: The module's name, for messages.
    """

    def __init__(self, kind: str, names: Sequence[str], form: Names, label: str) -> None:
        self.names = tuple(names)
        self._kind = kind
        self._form = form
        self._label = label
        named = self.build(self.names)
        # The names again, in the order of JAX's leaves.
        self._order = tuple(jax.tree_util.tree_leaves(named))
        self._treedef: Any = jax.tree_util.tree_structure(named)

    def build(self, values: Sequence[Any]) -> dict[str, Any]:
        """The pytree of these values."""
        if self._form == "flat":
            return dict(zip(self.names, values, strict=True))
        tree: dict[str, Any] = {}
        for name, value in zip(self.names, values, strict=True):
            # Torch takes no names with dots for layers, parameters or buffers.
            *layers, last = name.split(".")
            inner = tree
            for layer in layers:
                inner = inner.setdefault(layer, {})
            inner[last] = value
        return tree

    def named(self, tree: Any) -> dict[str, Any]:
        """The leaves by whole names; both forms are understood, and other mappings than dict.

        Raises:
            ModuleError: Names are missing, or there are others.
        """
        leaves, treedef = jax.tree_util.tree_flatten(tree)
        # The everyday case: paths are only made for other mappings, and for the other form.
        if treedef == self._treedef:
            return dict(zip(self._order, leaves, strict=True))
        found = {".".join(map(str, path)): leaf for path, leaf in flatten_with_paths(tree)}
        if found.keys() != set(self.names):
            raise self._mismatch(found)
        return found

    def values(self, tree: Any) -> list[Any]:
        """The leaves in the order of ``names``.

        Raises:
            ModuleError: As `named`.
        """
        named = self.named(tree)
        return [named[name] for name in self.names]

    def replaced(self, tree: Any, changed: Mapping[str, Any]) -> Any:
        """The same pytree with some leaves exchanged, by whole names."""
        named = {".".join(map(str, path)): leaf for path, leaf in flatten_with_paths(tree)}
        # In the order of the caller's own tree, which may be of the other form.
        leaves = [changed.get(name, leaf) for name, leaf in named.items()]
        return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(tree), leaves)

    def _mismatch(self, found: Mapping[str, Any]) -> ModuleError:
        missing = [name for name in self.names if name not in found]
        others = [name for name in found if name not in self.names]
        parts = [
            f"{words} {', '.join(f'`{name}`' for name in names[:4])}"
            + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            for words, names in (("without", missing), ("with unknown", others))
            if names
        ]
        return ModuleError(
            f"{self._label}: expected its {len(self.names)} {self._kind} by the module's names; "
            f"got a pytree {' and '.join(parts)}. Pass a pytree of the form of "
            f"`.{'params' if self._kind == 'parameters' else 'buffers'}`."
        )
