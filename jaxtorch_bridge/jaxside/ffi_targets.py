"""The FFI targets by which XLA finds the native handler."""

from __future__ import annotations

import functools
from types import ModuleType

import jax

from .end_of_process import wait_at_the_end
from .process_agreement import agreement_of_this_run

CALL_TARGET = "jaxtorch_bridge.call"
_STATE_TYPE = "jaxtorch_bridge.OpState"


def export_target(label: str) -> str:
    """The target of a function's calls in exported programs.

    It holds name and version, so that XLA's own error says them in a process that has neither
    the function nor this library.
    """
    return f"{CALL_TARGET}:{label}"


@functools.cache
def register_label(native: ModuleType, label: str) -> None:
    """Tell XLA of the target that programs which were exported call ``label`` by."""
    register_targets(native)
    for platform in _platforms():
        _register_target(native, export_target(label), platform)


@functools.cache
def register_targets(native: ModuleType) -> None:
    """Tell XLA of the handler, once a process, on every platform that is there.

    Backends must exist first: JAX replays registrations made earlier in an order (handlers
    before types) that XLA refuses.
    """
    platforms = _platforms()
    # Before XLA knows the handler: the first executable that is made may ask for it.
    native.set_agreement(agreement_of_this_run())
    wait_at_the_end(native)
    for platform in platforms:
        # A type for each platform: JAX's CPU client and its CUDA plugin number theirs apart, and an
        # id of one names another type of the other.
        jax.ffi.register_ffi_type(_STATE_TYPE, native.state_type(platform), platform=platform)
        _register_target(native, CALL_TARGET, platform)


def _platforms() -> tuple[str, ...]:
    found = {device.platform for device in jax.devices()}
    jax.devices("cpu")
    return ("cpu", "CUDA") if found & {"gpu", "cuda"} else ("cpu",)


def _register_target(native: ModuleType, target: str, platform: str) -> None:
    jax.ffi.register_ffi_target(target, native.handlers(platform), platform=platform)


def cpu_devices() -> int:
    """How many devices run on this process's cores."""
    try:
        return len(jax.local_devices(backend="cpu"))
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return 1
