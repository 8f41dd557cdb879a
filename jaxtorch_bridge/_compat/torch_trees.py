"""Torch's own trees of lists, tuples and dicts. Tried on torch 2.11.0, 2.13.0 and 2.14.1."""

from __future__ import annotations

from torch.utils._pytree import arg_tree_leaves as arg_tree_leaves
from torch.utils._pytree import tree_flatten as tree_flatten
from torch.utils._pytree import tree_leaves as tree_leaves
from torch.utils._pytree import tree_map_only as tree_map_only
