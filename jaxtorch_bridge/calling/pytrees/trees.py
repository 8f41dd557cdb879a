"""Flatten and rebuild what a torch function takes and returns.

JAX's own pytrees, classes that torch's registry knows (`torch_nodes`), and dataclasses that nobody
registered with either: those are taken apart field by field without registering anything globally.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from .torch_nodes import adopt, for_torch


@dataclasses.dataclass(frozen=True)
class Structure:
    """How flat leaves make up a tree. Hashable, equal by content.

    Attributes:
        treedef: JAX's part.
        inner: For every leaf of ``treedef`` None, or (class, structure of its fields); empty
            if there are no dataclasses.
    """

    treedef: Any
    inner: tuple[tuple[type, Structure] | None, ...] = ()

    @property
    def is_leaf(self) -> bool:
        """Whether the tree is one leaf and nothing around it."""
        # One node is not enough: None and an empty list are one node without a leaf.
        return not self.inner and self.treedef.num_leaves == self.treedef.num_nodes == 1


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of ``tree`` in order, and its structure."""
    leaves, treedef = jax.tree_util.tree_flatten(tree)
    # Kinds, of which there are few: most trees hold arrays alone.
    kinds = set(map(type, leaves))
    if any(map(adopt, kinds)):
        return flatten(tree)
    if any(map(_is_dataclass, kinds)):
        return _flatten_dataclasses(leaves, treedef)
    return leaves, Structure(treedef)


def flatten_with_paths(tree: Any) -> list[tuple[tuple[str | int, ...], Any]]:
    """The leaves in the order of `flatten`, each with its path from the root."""
    found: list[tuple[tuple[str | int, ...], Any]] = []
    flatten(tree)  # which makes classes known to JAX
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        path = tuple(_key_of(key) for key in keys)
        if is_open_dataclass(leaf):
            found += [(path + rest, inner) for rest, inner in flatten_with_paths(_fields(leaf))]
        else:
            found.append((path, leaf))
    return found


def unflatten(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The tree of this structure with these leaves."""
    if not structure.inner:
        return jax.tree_util.tree_unflatten(structure.treedef, leaves)
    outer: list[Any] = []
    start = 0
    for entry in structure.inner:
        count = 1 if entry is None else leaf_count(entry[1])
        part = leaves[start : start + count]
        start += count
        outer.append(part[0] if entry is None else entry[0](**unflatten(entry[1], part)))
    return jax.tree_util.tree_unflatten(structure.treedef, outer)


def paths_of(structure: Structure) -> list[tuple[str | int, ...]]:
    """The path of each leaf of a tree of this structure."""
    numbered = unflatten(structure, list(range(leaf_count(structure))))
    return [path for path, _ in flatten_with_paths(numbered)]


def leaf_count(structure: Structure) -> int:
    """Number of flat leaves."""
    if not structure.inner:
        return int(structure.treedef.num_leaves)
    return sum(1 if entry is None else leaf_count(entry[1]) for entry in structure.inner)


def is_open_dataclass(leaf: Any) -> bool:
    """Whether a leaf is an instance of a dataclass that JAX does not know."""
    # Asked of the type: a class that is passed as a static value has the attribute itself.
    return _is_dataclass(type(leaf))


def unflatten_for_torch(structure: Structure, leaves: Sequence[Any]) -> Any:
    """The tree of this structure with these tensors, for a torch function."""
    with for_torch():
        return unflatten(structure, leaves)


def path_text(path: Sequence[str | int], root: str = "") -> str:
    """A path as a person would write it: ``params['w']``, ``[0]``, ``x``."""
    text = root
    for index, part in enumerate(path):
        bare = index == 0 and not root and isinstance(part, str)
        text += part if bare and isinstance(part, str) else f"[{part!r}]"
    return text


def _is_dataclass(kind: type) -> bool:
    return hasattr(kind, "__dataclass_fields__") and not issubclass(kind, jax.Array)


def _fields(leaf: Any) -> dict[str, Any]:
    # Fields of __init__ alone: `unflatten` makes the object by calling its class with them.
    return {
        field.name: getattr(leaf, field.name) for field in dataclasses.fields(leaf) if field.init
    }


def _flatten_dataclasses(leaves: Sequence[Any], treedef: Any) -> tuple[list[Any], Structure]:
    flat: list[Any] = []
    inner: list[tuple[type, Structure] | None] = []
    for leaf in leaves:
        if is_open_dataclass(leaf):
            part, structure = flatten(_fields(leaf))
            flat += part
            inner.append((type(leaf), structure))
        else:
            flat.append(leaf)
            inner.append(None)
    return flat, Structure(treedef, tuple(inner))


def _key_of(key: Any) -> str | int:
    # What JAX's keys of dicts, of sequences and of attributes call it.
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            value = getattr(key, attribute)
            return value if isinstance(value, (str, int)) else str(value)
    return str(key)
