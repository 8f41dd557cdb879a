"""What programs made by `jax.export` call, to be allowed there."""

from __future__ import annotations

import weakref
from typing import Any

from ..jaxside.ffi_targets import CALL_TARGET, export_target, register_label, register_targets
from ..torchside.handler.native_module import native

_labels: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def remember(function: Any, name: str, version: str) -> None:
    """Take note of a callable as long as it lives."""
    _labels[function] = f"{name}@{version}"


def ffi_target_names() -> tuple[str, ...]:
    """What exported programs may call: ``jaxtorch_bridge.call``, and a name for each callable.

    Pass them to `jax.export`, all or those of the functions that the program calls::

        allowed = [jax.export.DisabledSafetyCheck.custom_call(n) for n in ffi_target_names()]
        jax.export.export(jax.jit(f), disabled_checks=allowed)(x)

    There is one for each `jax_callable` that is alive, with the name and the version of its
    contract (0 without one), such as ``jaxtorch_bridge.call:attention@2.1.0``. The first is what
    runs of many processes call. XLA knows all of them from then on, so that a process that has
    imported the functions, but not called them, gets this library's errors. Starts JAX's backends.
    """
    labels = sorted(set(_labels.values()))
    for label in labels:
        register_label(native(), label)
    register_targets(native())
    return (CALL_TARGET, *map(export_target, labels))
