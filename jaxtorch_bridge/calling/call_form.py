"""In which form a function is called, as text for its key: the same in every process.

A function may look at the form of its arguments (``if "mask" in inputs``), which neither shapes nor
static values tell.
"""

from __future__ import annotations

import hashlib
from typing import Any

from .._compat.jax.tree_structures import node_of
from ..torchside.modules.module_call import Mode
from .pytrees.torch_nodes import NodeRest
from .pytrees.trees import Structure


def form_of(structure: Structure, mode: Mode | None) -> tuple[str, tuple[Any, ...]]:
    """The form of a call.

    Args:
        structure: Of ``(args, kwargs)``.
        mode: In which way a module of `from_module` is called; None for any other function.

    Returns:
        16 hex digits, or the empty string for leaves by position and nothing else; and what classes
        of containers keep besides their children, which may be anything.
    """
    contents: list[Any] = []
    text = _structure_text(structure, contents)
    if mode is None and text == f"(({'*,' * _count(structure)}),{{}},)":
        return "", ()
    digest = hashlib.sha256(f"{text} {mode}".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()[:16], tuple(contents)


def _count(structure: Structure) -> int:
    return int(structure.treedef.num_leaves)


def _structure_text(structure: Structure, contents: list[Any]) -> str:
    text = _tree_text(structure.treedef, contents)
    # Of dataclasses that JAX does not know, which are leaves to it.
    for entry in structure.inner:
        if entry is None:
            text += "*"
        else:
            text += f" {_name(entry[0])}{_structure_text(entry[1], contents)}"
    return text


def _tree_text(treedef: Any, contents: list[Any]) -> str:
    node = node_of(treedef)
    if node is None:
        return "*"
    kind, content, children = node
    parts = [_tree_text(child, contents) for child in children]
    listed = "".join(f"{part}," for part in parts)
    if kind is type(None):
        return "None"
    if kind is tuple:
        return f"({listed})"
    if kind is list:
        return f"[{listed}]"
    if kind is dict:
        pairs = zip(content, parts, strict=True)
        return f"{{{''.join(f'{_key_text(key, contents)}:{part},' for key, part in pairs)}}}"
    contents.append(content.content if isinstance(content, NodeRest) else content)
    return f"{_name(kind)}({listed})"


def _key_text(key: Any, contents: list[Any]) -> str:
    if type(key) in (str, int, bool):
        return repr(key)
    # Its own text may hold an address.
    contents.append(key)
    return f"<{_name(type(key))}>"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
