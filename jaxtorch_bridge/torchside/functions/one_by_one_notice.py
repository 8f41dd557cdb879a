"""What is said when torch is called once for each element of a batch."""

from __future__ import annotations

import warnings

from ...call_site import caller_level
from ...errors import BridgeWarning
from .tensor_function import TensorFunction


def warn_one_by_one(fn: TensorFunction, label: str, failure: str) -> None:
    """Of one call an element, which nobody asked for: once a callable.

    Args:
        fn: Of the callable, or made of it.
        label: Name for the message.
        failure: Why one call will not do.
    """
    # Shared by all ops of the callable: `TensorFunction.notices` is copied by reference.
    if "vmap" in fn.notices:
        return
    fn.notices.add("vmap")
    warnings.warn(
        f"{label}: jax.vmap calls torch once for each element ({failure}). Say `vmap_method: "
        "sequential` if that is meant; `explain` shows which parts are batched.",
        BridgeWarning,
        stacklevel=caller_level(),
    )
