"""Torch's own trees, and the classes that libraries made nodes of them.

Tried on torch 2.11.0, 2.13.0 and 2.14.1; transformers 5.24.0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import SUPPORTED_NODES
from torch.utils._pytree import arg_tree_leaves as arg_tree_leaves
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map as tree_map
from torch.utils._pytree import tree_map_only as tree_map_only

# A torch.Size is a node of numbers there. Here it is a value.
_VALUES = (torch.Size,)


@dataclass(frozen=True)
class Node:
    """How instances of a class are taken apart and made.

    Attributes:
        flatten: To children and whatever else there is of it.
        unflatten: From both.
        keyed: As ``flatten``, with the key of each child; None where nobody said.
        of_tensors_alone: Children must be tensors.
    """

    flatten: Callable[[Any], tuple[Sequence[Any], Any]]
    unflatten: Callable[[Sequence[Any], Any], Any]
    keyed: Callable[[Any], tuple[Sequence[tuple[Any, Any]], Any]] | None = None
    of_tensors_alone: bool = False


def is_node(kind: type) -> bool:
    """Whether torch's registry knows a class now, or its library has something to register."""
    return (kind in SUPPORTED_NODES and kind not in _VALUES) or _is_cache(kind)


def node_of(kind: type) -> Node:
    """How a class is taken apart for which `is_node` holds."""
    found = SUPPORTED_NODES.get(kind)
    if found is not None:
        return Node(found.flatten_fn, found.unflatten_fn, found.flatten_with_keys_fn)
    # Transformers does not register its caches before it exports something.
    from transformers.exporters import exporter_dynamo as exporter

    return Node(
        exporter._pytree_flatten,
        exporter._pytree_unflatten,
        exporter._pytree_flatten_with_keys,
        of_tensors_alone=True,
    )


def field_names(kind: type) -> tuple[str, ...] | None:
    """The fields of a class of ``torch.return_types``; None for any other."""
    if kind.__module__ != "torch.return_types" or not issubclass(kind, tuple):
        return None
    return tuple(getattr(kind, "__match_args__", ()))


@functools.lru_cache(maxsize=256)
def _is_cache(kind: type) -> bool:
    bases = {(base.__module__, base.__name__) for base in kind.__mro__}
    return ("transformers.cache_utils", "Cache") in bases and _exporter_is_there()


@functools.cache
def _exporter_is_there() -> bool:
    try:
        from transformers.exporters import exporter_dynamo as exporter
    except ImportError:
        return False
    return hasattr(exporter, "_pytree_flatten_with_keys")
