"""The nodes of JAX's tree structures, one by one. Tried on jax 0.10.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

LEAF: Any = jax.tree_util.tree_structure(0)
_PyTreeDef = type(LEAF)


def node_of(treedef: Any) -> tuple[type, Any, list[Any]] | None:
    """The class of the uppermost node, what belongs to it besides its children, and these.

    None for a leaf.
    """
    data = treedef.node_data()
    return None if data is None else (*data, treedef.children())


def tree_of(kind: type, content: Any, children: Sequence[Any]) -> Any:
    """The structure with this uppermost node. Makes no object of the class.

    Raises:
        RuntimeError: JAX does not know the class, or the content does not fit it.
    """
    registry = jax.tree_util.default_registry
    return _PyTreeDef.from_node_data_and_children(registry, (kind, content), children)
