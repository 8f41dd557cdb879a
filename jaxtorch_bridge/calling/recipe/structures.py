"""The structure of a call's arguments as data, and back."""

from __future__ import annotations

from typing import Any

from ..._compat.jax.tree_structures import LEAF, node_of, tree_of
from ..pytrees import torch_nodes
from ..pytrees.torch_nodes import NodeRest, adopt
from ..pytrees.trees import Structure
from .class_names import class_of_name, name_of_class
from .not_data import NotDataError, RecipeError
from .values import MOST_LEVELS, read_value, value_data


def structure_data(structure: Structure) -> Any:
    """A structure as data.

    Raises:
        NotDataError: A class in it cannot be named, or keeps more than plain values.
    """
    for entry in structure.inner:
        if entry is not None:
            kind = entry[0]
            raise NotDataError(
                f"`{kind.__module__}.{kind.__qualname__}` is no pytree of JAX; register it with "
                "jax.tree_util.register_dataclass"
            )
    return _tree_data(structure.treedef, 0)


def _tree_data(treedef: Any, level: int) -> Any:
    if level > MOST_LEVELS:
        raise NotDataError(f"an argument is nested in more than {MOST_LEVELS} containers")
    node = node_of(treedef)
    if node is None:
        return 0
    kind, content, children = node
    if kind is type(None):
        return None
    parts = [_tree_data(child, level + 1) for child in children]
    if kind in (tuple, list):
        return {kind.__name__: parts}
    if kind is dict:
        return {"dict": [[value_data(k), part] for k, part in zip(content, parts, strict=True)]}
    found = {"class": name_of_class(kind), "children": parts}
    if isinstance(content, NodeRest):
        # Of a class that torch's registry knows: JAX has learnt of it from there.
        if content.kind is not kind:
            raise NotDataError(f"an argument stands for an object of `{content.kind.__qualname__}`")
        return found | {"of torch": value_data(content.content)}
    return found if _is_named_tuple(kind) else found | {"content": value_data(content)}


def read_structure(data: Any) -> Structure:
    """The structure that data stand for.

    Raises:
        RecipeError: They stand for none, or for classes that this process does not know.
    """
    return Structure(_read_tree(data, 0))


def _read_tree(data: Any, level: int) -> Any:
    if level > MOST_LEVELS:
        raise RecipeError(f"an argument is nested in more than {MOST_LEVELS} containers")
    if type(data) is int:
        return LEAF
    try:
        if data is None:
            return tree_of(type(None), None, ())
        if type(data) is not dict:
            raise TypeError("expected a container")
        for kind in (tuple, list):
            if kind.__name__ in data:
                return tree_of(kind, None, _read_trees(data[kind.__name__], level))
        if "dict" in data:
            keys = [read_value(key) for key, _ in data["dict"]]
            if len(set(keys)) != len(keys):
                raise ValueError("a key stands twice")
            return tree_of(dict, keys, _read_trees([part for _, part in data["dict"]], level))
        return _read_class(data, level)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise RecipeError(f"no container is written so: {str(error)[:200]}") from error


def _read_trees(data: Any, level: int) -> list[Any]:
    if type(data) is not list:
        raise TypeError("expected a list")
    return [_read_tree(part, level + 1) for part in data]


def _read_class(data: dict[str, Any], level: int) -> Any:
    kind = _class(data["class"])
    children = _read_trees(data["children"], level)
    if _is_named_tuple(kind):
        # Nobody else compares the numbers before an object is made.
        if len(children) != len(kind._fields):  # type: ignore[attr-defined]
            raise ValueError(f"{kind.__qualname__} has other fields")
        return tree_of(kind, None, children)
    # JAX may not have met one here.
    of_torch = adopt(kind)
    content = None
    if "of torch" in data:
        if not of_torch:
            raise RecipeError(
                f"it holds an object of `{data['class']}`, of which torch's registry of pytrees "
                "does not know here"
            )
        content = NodeRest(kind, read_value(data["of torch"]))
    elif "content" in data:
        content = read_value(data["content"])
    # Refuses classes that nobody has registered.
    return tree_of(kind, content, children)


def _class(name: Any) -> type:
    module, _, own = str(name).partition(":")
    # Made when one is first met, which may not have happened here.
    made = torch_nodes.return_type(own) if module == torch_nodes.__name__ else None
    return class_of_name(name) if made is None else made


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")
