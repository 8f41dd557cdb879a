"""Whole trees from one side to the other: those that calls take, in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from ...errors import DtypeError, TransferError
from ...transfer import j2t, t2j
from . import trees
from .torch_nodes import for_torch


def tree_t2j(tree: Any, *, copy: bool | None = None) -> Any:
    """The same pytree with each tensor turned by `t2j`; other leaves stay as they are.

    What torch's own registry knows is a pytree, too: of a cache of transformers comes what a call
    on JAX's side takes for one.

    Raises:
        TransferError: As `t2j`, after the path of the leaf.
        DtypeError: As `t2j`, after the path of the leaf.
    """
    return _map_leaves(lambda leaf: t2j(leaf, copy=copy), torch.Tensor, tree)


def tree_j2t(tree: Any, *, copy: bool | None = None) -> Any:
    """The same pytree with each JAX or numpy array turned by `j2t`; other leaves stay.

    Raises:
        TransferError: As `j2t`, after the path of the leaf.
        DtypeError: As `j2t`, after the path of the leaf.
    """
    with for_torch():
        return _map_leaves(lambda leaf: j2t(leaf, copy=copy), (jax.Array, np.ndarray), tree)


def _map_leaves(convert: Callable[[Any], Any], kinds: type | tuple[type, ...], tree: Any) -> Any:
    """Convert the leaves of these kinds; an error names the path of its leaf."""

    def one(path: tuple[Any, ...], leaf: Any) -> Any:
        if not isinstance(leaf, kinds):
            return leaf
        try:
            return convert(leaf)
        except (TransferError, DtypeError) as error:
            place = jax.tree_util.keystr(path)
            raise type(error)(f"leaf `{place}`: {error}" if place else str(error)) from error

    trees.flatten(tree)  # which makes classes known to JAX
    return jax.tree_util.tree_map_with_path(one, tree)
