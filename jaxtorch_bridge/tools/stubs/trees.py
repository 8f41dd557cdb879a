"""Nested arrays as types: a dict becomes a TypedDict of its own, a list a tuple."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...spec.array_tree import Node, leaves_of
from ...spec.model import CallableSpec
from ...spec.tensor import TensorSpec
from .arrays import annotation
from .names import Names
from .text import indented


def may_be_left_out(node: Node) -> bool:
    """Whether a call need not pass ``node``: all that it holds is optional."""
    leaves = leaves_of(node)
    return bool(leaves) and all(leaf.optional for _, leaf in leaves)


def keys_of(node: Node) -> set[str]:
    """The keys of all dicts in ``node``."""
    if isinstance(node, TensorSpec):
        return set()
    below = node.values() if isinstance(node, Mapping) else node
    own = set(node) if isinstance(node, Mapping) else set()
    return own.union(*map(keys_of, below))


@dataclass
class Trees:
    """Types of nested arrays, for arrays of one kind.

    Attributes:
        spec: The contract.
        names: Those of the module.
        array: ``Array`` or ``Tensor``.
        suffix: What the names of the dicts end with.
        lines: The definitions of the dicts so far, each before what uses it.
    """

    spec: CallableSpec
    names: Names
    array: str
    suffix: str = ""
    lines: list[str] = field(default_factory=list)

    def type_of(self, node: Node, *path: str) -> str:
        """The type of ``node``; ``path`` names the dicts in it."""
        if isinstance(node, TensorSpec):
            return annotation(self.spec, node, self.array, self.names)
        if isinstance(node, Mapping):
            return self.dict_of(node, *path)
        entries = [self._entry(one, *path, str(index)) for index, one in enumerate(node)]
        return f"{self.names.use('tuple')}[{', '.join(entries) or '()'}]"

    def dict_of(self, entries: Mapping[str, Node], *path: str) -> str:
        """The name of a new TypedDict with these entries."""
        name = self.names.make(*path, self.suffix)
        types = {key: self._key(node, *path, key) for key, node in entries.items()}
        base = self.names.use("TypedDict")
        if all(map(_is_plain, types)):
            fields = [f"{key}: {text}" for key, text in types.items()] or ["pass"]
            self.lines += [f"class {name}({base}):", *indented(fields), ""]
        else:
            fields = [f"{key!r}: {text}," for key, text in types.items()]
            self.lines += [f'{name} = {base}("{name}", {{', *indented(fields), "})", ""]
        return name

    def _key(self, node: Node, *path: str) -> str:
        text = self._entry(node, *path)
        return f"{self.names.use('NotRequired')}[{text}]" if may_be_left_out(node) else text

    def _entry(self, node: Node, *path: str) -> str:
        text = self.type_of(node, *path)
        return f"{text} | None" if may_be_left_out(node) else text


def _is_plain(key: str) -> bool:
    """Whether a class can have ``key`` as the name of a field."""
    # Python changes the names that begin with two underscores inside a class.
    return key.isidentifier() and not keyword.iskeyword(key) and not key.startswith("__")
