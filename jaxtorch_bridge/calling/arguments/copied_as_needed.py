"""Copies of what a torch function is seen to write to, where nobody has asked for them.

For callers of `compat`, whose functions were written for a bridge that let them write.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from ...call_site import caller_level
from ...dotted_names import dotted
from ...errors import BridgeWarning


def tell_of_copies(label: str, paths: Sequence[str], told: set[str]) -> None:
    """Say once a callable what is copied, and what to write instead.

    Args:
        label: Its name.
        paths: The arguments that it writes to.
        told: What it has been told of; shared by all that is planned of it.
    """
    if told:
        return
    told.update(paths)
    listed = ", ".join(f"`{path}`" for path in paths)
    names = ", ".join(f'"{dotted(path)}"' for path in paths) + ("," if len(paths) == 1 else "")
    warnings.warn(
        f"{label}: the torch function writes to {listed}. JAX arrays cannot change, so that each "
        "call gives it a copy, and what it writes is lost. If that is meant, say so by "
        f"jax_callable(function, copies=({names})); mutates=({names}) has the new value come back.",
        BridgeWarning,
        stacklevel=caller_level(),
    )
