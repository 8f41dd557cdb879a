"""The tree of arrays under ``inputs`` and ``outputs``: read, walked and written.

A mapping with a ``dtype`` is an array, any other mapping a group of named nodes (a dict or a
dataclass of the call), a list is a list or tuple, a string an array in shorthand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from pydantic import ValidationError

from .language.frozen_mapping import FrozenDict
from .language.identifiers import is_identifier
from .language.problems import Fault, Path, faults_of, raise_faults
from .language.wording import show
from .tensor import TensorSpec

Node: TypeAlias = "TensorSpec | FrozenDict[str, Node] | tuple[Node, ...]"
Leaves: TypeAlias = tuple[tuple[Path, TensorSpec], ...]

# Real trees are a few levels deep; a limit keeps cycles in a caller's dict from recursing.
_DEEPEST = 32
_TENSOR_FIELDS = frozenset(TensorSpec.model_fields)


def read_tree(value: object) -> FrozenDict[str, Node]:
    """The named nodes under ``inputs`` or ``outputs``.

    Raises:
        ValidationError: With everything that is wrong below ``value``.
    """
    faults: list[Fault] = []
    tree: dict[str, Node] = {}
    if not isinstance(value, Mapping):
        faults.append(Fault("a mapping from names to arrays", show(value)))
    else:
        tree = _read_entries(value, (), faults)
        # Only here: further down names are keys of dicts or fields, and any text will do.
        faults.extend(_odd_names(tree))
    raise_faults(faults)
    return FrozenDict(tree)


def _odd_names(names: Mapping[str, object]) -> Iterator[Fault]:
    """Top-level names that no argument of a Python function can have."""
    for name in names:
        if not is_identifier(name):
            yield Fault("a Python identifier as name", show(name), (name,), at_key=True)


def _read_entries(value: Mapping[Any, object], path: Path, faults: list[Fault]) -> dict[str, Node]:
    entries: dict[str, Node] = {}
    for key, child in value.items():
        if not isinstance(key, str) or not key or not key.isprintable():
            expected = "a name (a string; put it in quotes)"
            faults.append(Fault(expected, show(key), (*path, str(key)), at_key=True))
            continue
        node = _read_node(child, (*path, key), faults)
        if node is not None:
            entries[key] = node
    return entries


def _read_node(value: object, path: Path, faults: list[Fault]) -> Node | None:
    if len(path) > _DEEPEST:
        faults.append(Fault(f"at most {_DEEPEST} levels of groups", "a deeper one", path))
        return None
    if isinstance(value, (str, TensorSpec)) or (isinstance(value, Mapping) and _is_tensor(value)):
        return _read_tensor(value, path, faults)
    if isinstance(value, Mapping):
        return FrozenDict(_read_entries(value, path, faults))
    if isinstance(value, (list, tuple)):
        nodes = [_read_node(one, (*path, str(i)), faults) for i, one in enumerate(value)]
        return tuple(node for node in nodes if node is not None)
    expected = "an array such as `float32[batch, 3]`, a group of arrays or a list"
    faults.append(Fault(expected, show(value), path))
    return None


def _is_tensor(value: Mapping[Any, object]) -> bool:
    if "dtype" in value:
        return True
    # An array whose dtype was forgotten or misspelt: say that, rather than complain about a group.
    if "shape" not in value or not _is_bare(value["shape"]):
        return False
    # An empty list may also be a member of a group, called `shape`, that holds nothing.
    return bool(value["shape"]) or _TENSOR_FIELDS.issuperset(value)


def _is_bare(shape: object) -> bool:
    """Whether ``shape`` has the form of a shape alone, not that of an array or a list of them."""
    if isinstance(shape, str):
        return shape.lstrip().startswith("[")
    return isinstance(shape, (list, tuple)) and all(
        isinstance(one, int) or (isinstance(one, str) and "[" not in one) for one in shape
    )


def _read_tensor(value: object, path: Path, faults: list[Fault]) -> TensorSpec | None:
    try:
        return TensorSpec.model_validate(value)
    except ValidationError as error:
        found = [one.below(*path) for one in faults_of(error, lambda _: TensorSpec.model_fields)]
        if len(path) > 1 and path[-1] == "doc" and isinstance(value, str):
            hint = " (or, for a remark on the group, a path and the remark under `groups`)"
            found = [replace(one, expected=one.expected + hint) for one in found]
        faults.extend(found)
        return None


def leaves_of(node: Node, path: Path = ()) -> Leaves:
    """All arrays of the tree with their paths, in the contract's order."""
    if isinstance(node, TensorSpec):
        return ((path, node),)
    return tuple(
        leaf for name, child in _children(node) for leaf in leaves_of(child, (*path, name))
    )


def with_leaves(node: Any, change: Callable[[TensorSpec], TensorSpec]) -> Any:
    """The tree with other arrays in the place of its own."""
    if isinstance(node, TensorSpec):
        return change(node)
    if isinstance(node, tuple):
        return tuple(with_leaves(child, change) for child in node)
    return FrozenDict({name: with_leaves(child, change) for name, child in node.items()})


def paths_of(node: Node | Mapping[str, Node], path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """All nodes below ``node`` with their paths, groups before what they hold."""
    if isinstance(node, TensorSpec):
        return
    for name, child in _children(node):
        yield (*path, name), child
        yield from paths_of(child, (*path, name))


def _children(node: Mapping[str, Node] | tuple[Node, ...]) -> Iterator[tuple[str, Node]]:
    if isinstance(node, Mapping):
        yield from node.items()
    else:
        yield from ((str(index), child) for index, child in enumerate(node))


def to_ordered_data(node: Node, *, docs: bool) -> Any:
    """The tree as JSON that keeps the order of its names and tells groups from arrays."""
    if isinstance(node, TensorSpec):
        return node.to_data(docs=docs)
    if isinstance(node, FrozenDict):
        # Pairs in a list: keys of a mapping are sorted when it becomes text.
        items = [[name, to_ordered_data(child, docs=docs)] for name, child in node.items()]
        return {"group": items}
    return [to_ordered_data(child, docs=docs) for child in node]
