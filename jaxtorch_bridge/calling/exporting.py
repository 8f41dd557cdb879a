"""What programs made by `jax.export` call: to be allowed there, and found where they are loaded."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import Any

from ..jaxside.ffi_targets import (
    CALL_TARGET,
    announce,
    export_target,
    register_label,
    register_targets,
)
from ..planner.op_keys import label_of_key
from ..torchside.handler.native_module import native
from .loaded_calls import find_op

_labels: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
# Threads wrap functions while others look through them, and so may what the garbage collector runs.
_lock = threading.RLock()


def remember(function: Any, name: str, version: str) -> None:
    """Take note of a callable as long as it lives, and have XLA know what programs call it by."""
    label = f"{name}@{version}"
    with _lock:
        _labels[function] = label
    # Without it calls fail, with words; nothing is lost by wrapping a function.
    with contextlib.suppress(ImportError):
        native().set_resolver(resolve)
        announce(native(), label)


def resolve(key: str, recipe: str, steps: str, held: bool) -> Any:
    """The op that an exported program calls. Called by the native handler.

    Args:
        key: Of the op, as exported.
        recipe: What it is planned from.
        steps: How it derives from its function's own op.
        held: Whether the native table has an op of this key.

    Returns:
        The handle that owns it; a text, why there is none; or None: what the table has.
    """
    label = label_of_key(key)
    with _lock:
        functions = [function for function, known in _labels.items() if known == label]
    # One that is held is the only one; of several, others that have not been planned may look
    # the same and differ in their weights.
    if not functions or (held and len(functions) == 1):
        return None
    found = find_op(functions, key, recipe, steps)
    return None if held and isinstance(found, str) else found


def ffi_target_names() -> tuple[str, ...]:
    """What exported programs may call: ``jaxtorch_bridge.call``, and a name for each callable.

    Pass them to `jax.export`, all or those of the functions that the program calls::

        allowed = [jax.export.DisabledSafetyCheck.custom_call(n) for n in ffi_target_names()]
        jax.export.export(jax.jit(f), disabled_checks=allowed)(x)

    There is one for each `jax_callable` that is alive, with the name and the version of its
    contract (0 without one), such as ``jaxtorch_bridge.call:attention@2.1.0``. The first is what
    runs of many processes call. Starts JAX's backends.
    """
    with _lock:
        labels = sorted(set(_labels.values()))
    for label in labels:
        register_label(native(), label)
    register_targets(native())
    return (CALL_TARGET, *map(export_target, labels))
