"""Classes that torch's pytree registry knows, as pytrees of JAX.

A class is registered with JAX when the first instance is met, also one that a library registers
with torch late. How it then looks on the JAX side:

- ``torch.return_types.max`` and its kin become named tuples of arrays.
- Where instances can be made with anything as children (the output classes of transformers, most
  users' own), they are instances of their own class, with arrays in them.
- Others compute with what they are made of (caches of transformers). An `Unopened` stands for
  them, and becomes one of them where a torch function takes it.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import torch

from ..._compat.torch import pytrees

_lock = threading.Lock()
_adopted: set[type] = set()
# What is made just now is for a torch function.
_making = threading.local()


def adopt(kind: type) -> bool:
    """Whether JAX takes instances apart from now on, which were leaves before."""
    return pytrees.is_node(kind) and _register(kind)


@contextlib.contextmanager
def for_torch() -> Iterator[None]:
    """Trees that this thread makes meanwhile have objects of torch's side in them."""
    before = getattr(_making, "for_torch", False)
    _making.for_torch = True
    try:
        yield
    finally:
        _making.for_torch = before


class Unopened:
    """An object of a torch library whose arrays are JAX's; its methods need torch's tensors.

    A pytree. Functions that take such an object on torch's side get one.

    Attributes:
        kind: The class.
        children: The arrays.
    """

    def __init__(self, rest: NodeRest, children: Sequence[Any]) -> None:
        self._rest = rest
        self.children = tuple(children)

    @property
    def kind(self) -> type:
        """The class of the object."""
        return self._rest.kind

    def __repr__(self) -> str:
        return f"{self.kind.__name__} of {list(self.children)!r}"


class NodeRest:
    """What there is of an object besides its children; compared by content, where that can be."""

    def __init__(self, kind: type, content: Any) -> None:
        self.kind = kind
        self.content = content

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NodeRest) or self.kind is not other.kind:
            return False
        if self.content is other.content:
            return True
        try:
            return bool(self.content == other.content)
        except Exception:  # arrays have no truth value, and libraries' objects may do anything
            return False

    def __hash__(self) -> int:
        return hash((self.kind, _hash_of(self.content)))

    def __repr__(self) -> str:
        return self.kind.__qualname__


def _hash_of(content: Any) -> int:
    if isinstance(content, dict):
        # Equal dicts may have other orders.
        return hash(frozenset((_hash_of(key), _hash_of(item)) for key, item in content.items()))
    if isinstance(content, (list, tuple)):
        return hash(tuple(map(_hash_of, content)))
    try:
        return hash(content)
    except Exception:
        return hash(type(content))


def _register(kind: type) -> bool:
    with _lock:
        if kind in _adopted:
            return True
        fields = pytrees.field_names(kind)
        try:
            if fields is not None:
                _register_return_type(kind, fields)
            else:
                _register_node(kind)
        except ValueError:  # JAX has it already: a thread of the user's was faster
            pass
        _adopted.add(kind)
        return True


def _register_return_type(kind: type, fields: tuple[str, ...]) -> None:
    keys = [jax.tree_util.GetAttrKey(name) for name in fields]
    named = named_tuple(kind.__name__, fields)
    jax.tree_util.register_pytree_with_keys(
        kind,
        lambda value: (list(zip(keys, value, strict=True)), None),
        lambda _, children: named(*children),
        lambda value: (tuple(value), None),
    )


@functools.cache
def named_tuple(name: str, fields: tuple[str, ...]) -> Any:
    """A named tuple as JAX and pickle know them."""
    made = collections.namedtuple(name, fields, rename=True, module=__name__)  # type: ignore[misc]
    # Where pickle looks for it.
    globals()[name] = made
    return made


def return_type(name: str) -> Any:
    """The named tuple that stands for ``torch.return_types.NAME``; None if there is none."""
    kind = vars(torch.return_types).get(name)
    fields = pytrees.field_names(kind) if isinstance(kind, type) else None
    return None if fields is None else named_tuple(name, fields)


def __getattr__(name: str) -> Any:
    found = return_type(name)
    if found is None:
        raise AttributeError(name)
    return found


def _register_node(kind: type) -> None:
    node = pytrees.node_of(kind)

    def flatten(value: Any) -> tuple[Sequence[Any], NodeRest]:
        children, content = node.flatten(value)
        return tuple(children), NodeRest(kind, content)

    def keyed(value: Any) -> tuple[Sequence[tuple[Any, Any]], NodeRest]:
        if node.keyed is None:
            children, rest = flatten(value)
            return [(jax.tree_util.SequenceKey(i), c) for i, c in enumerate(children)], rest
        pairs, content = node.keyed(value)
        return [(_jax_key(key), child) for key, child in pairs], NodeRest(kind, content)

    # Decided once, with children that can do nothing: the first objects of a class tell for all.
    opens: list[bool] = []

    def unflatten(rest: NodeRest, children: Iterable[Any]) -> Any:
        children = list(children)
        if getattr(_making, "for_torch", False):
            return node.unflatten(children, rest.content)
        if not opens:
            opens.append(not node.of_tensors_alone and _holds_anything(node, kind, rest, children))
        if opens[0]:
            return node.unflatten(children, rest.content)
        return Unopened(rest, children)

    jax.tree_util.register_pytree_with_keys(kind, keyed, unflatten, flatten)


def _holds_anything(
    node: pytrees.Node, kind: type, rest: NodeRest, children: Sequence[Any]
) -> bool:
    inert = [object() for _ in children]
    try:
        made = node.unflatten(inert, rest.content)
        found, content = node.flatten(made)
    except Exception:
        return False
    same = len(found) == len(inert) and all(a is b for a, b in zip(found, inert, strict=True))
    return type(made) is kind and same and NodeRest(kind, content) == rest


def _jax_key(key: Any) -> Any:
    # Torch's keys of sequences, of dicts and of attributes.
    for attribute, made in (
        ("idx", jax.tree_util.SequenceKey),
        ("key", jax.tree_util.DictKey),
        ("name", jax.tree_util.GetAttrKey),
    ):
        if hasattr(key, attribute):
            return made(getattr(key, attribute))
    return jax.tree_util.DictKey(str(key))


def _flatten_unopened(value: Unopened) -> tuple[tuple[Any, ...], NodeRest]:
    return value.children, value._rest


def _unflatten_unopened(rest: NodeRest, children: Sequence[Any]) -> Any:
    if getattr(_making, "for_torch", False):
        return pytrees.node_of(rest.kind).unflatten(list(children), rest.content)
    return Unopened(rest, children)


jax.tree_util.register_pytree_node(Unopened, _flatten_unopened, _unflatten_unopened)
