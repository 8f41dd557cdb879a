"""The function interface of the package ``wrap-torch2jax``, on top of `jax_callable`.

For programs that were written for it: the same names, parameters and defaults. Errors are of this
package's family; ``docs/migrating.md`` lists every difference. New code is better off with
`jaxtorch_bridge.jax_callable`, which needs no examples.
"""

from __future__ import annotations

from torch import Size as Size

from .transfer import dtype_j2t as dtype_j2t
from .transfer import dtype_t2j as dtype_t2j
from .transfer import j2t as j2t
from .transfer import t2j as t2j
from .transfer import tree_j2t as tree_j2t
from .transfer import tree_t2j as tree_t2j
from .wrap import torch2jax as torch2jax
from .wrap import torch2jax_auto as torch2jax_auto
from .wrap import torch2jax_flat as torch2jax_flat
from .wrap import torch2jax_with_vjp as torch2jax_with_vjp
from .wrap import torch2jax_without_vjp as torch2jax_without_vjp
from .wrapped_function import Torch2Jax as Torch2Jax

wrap_torch_fn = torch2jax

__all__ = [
    "Size",
    "Torch2Jax",
    "dtype_j2t",
    "dtype_t2j",
    "j2t",
    "t2j",
    "torch2jax",
    "torch2jax_auto",
    "torch2jax_flat",
    "torch2jax_with_vjp",
    "torch2jax_without_vjp",
    "tree_j2t",
    "tree_t2j",
    "wrap_torch_fn",
]
