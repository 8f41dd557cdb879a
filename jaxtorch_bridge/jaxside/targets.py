"""The FFI targets by which XLA finds the native handler."""

from __future__ import annotations

import functools
from types import ModuleType

import jax

from .processes import agreement_of_this_run

CALL_TARGET = "jaxtorch_bridge.call"
_STATE_TYPE = "jaxtorch_bridge.OpState"


@functools.cache
def register_targets(native: ModuleType) -> None:
    """Tell XLA of the handler, once a process, on every platform that is there.

    Backends must exist first: JAX replays registrations made earlier in an order (handlers
    before types) that XLA refuses.
    """
    platforms = {device.platform for device in jax.devices()}
    jax.devices("cpu")
    native.set_agreement(agreement_of_this_run())
    _register(native, "cpu")
    if platforms & {"gpu", "cuda"}:
        _register(native, "CUDA")


def _register(native: ModuleType, platform: str) -> None:
    jax.ffi.register_ffi_type(_STATE_TYPE, native.state_type(), platform=platform)
    jax.ffi.register_ffi_target(CALL_TARGET, native.handlers(platform), platform=platform)


def cpu_devices() -> int:
    """How many devices run on this process's cores."""
    try:
        return len(jax.local_devices(backend="cpu"))
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return 1
