"""The FFI targets by which XLA finds the native handler."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from types import ModuleType

import jax

from .._compat.jax.ffi_registration import open_platforms, when_plugins_are_there
from .end_of_process import wait_at_the_end
from .process_agreement import Agreement, agreement_of_this_run

CALL_TARGET = "jaxtorch_bridge.call"
# Of calls that XLA may record into a command buffer, on a GPU.
RECORDED_TARGET = f"{CALL_TARGET}.recorded"
_STATE_TYPE = "jaxtorch_bridge.OpState"


def export_target(label: str) -> str:
    """The target of a function's calls in exported programs.

    It holds name and version, so that XLA's own error says them in a process that has neither
    the function nor this library.
    """
    return f"{CALL_TARGET}:{label}"


# Threads that compile may be the first ones at the same time. Reentrant: starting JAX's backends,
# under it, announces what has been wrapped.
_lock = threading.RLock()
# Labels that XLA is to know on every platform, also on those that it does not have yet.
_announced: set[str] = set()


def announce(native: ModuleType, label: str) -> None:
    """Have XLA know a label where it can know it by now, and later where it cannot.

    So a process that has wrapped a function can run programs that call it. Starts no backend.
    """
    if label in _announced:
        return
    with _lock:
        if not _announced and not _prepared.cache_info().currsize:
            # Asked by the first executable with a torch call; from then on what it sets holds.
            native.set_agreement(functools.partial(_first_executable, native))
        if not _announced:
            when_plugins_are_there(functools.partial(_announce_all, native))
        _announced.add(label)
    _register(native, label, open_platforms())


def _announce_all(native: ModuleType) -> None:
    for label in sorted(_announced):
        _register(native, label, open_platforms())


def _first_executable(native: ModuleType, key: str, held: bool, devices: int) -> str:
    agreement = register_targets(native)
    return "" if agreement is None else agreement(key, held, devices)


@functools.cache
def register_label(native: ModuleType, label: str) -> None:
    """Tell XLA of the target that programs which were exported call ``label`` by."""
    register_targets(native)
    _register(native, label, _platforms())


def register_targets(native: ModuleType) -> Agreement | None:
    """Tell XLA of the handler, once a process, on every platform that is there.

    Starts JAX's backends: only they know of processes and platforms.

    Returns:
        What the processes of a run agree on an op by; None where there is one process.
    """
    with _lock:
        return _prepared(native)


@functools.cache
def _prepared(native: ModuleType) -> Agreement | None:
    platforms = _platforms()
    # Before XLA knows the handler: the first executable that is made may ask for it.
    agreement = agreement_of_this_run()
    native.set_agreement(agreement)
    wait_at_the_end(native)
    for platform in platforms:
        _register_platform(native, platform)
    return agreement


def _platforms() -> tuple[str, ...]:
    found = {device.platform for device in jax.devices()}
    jax.devices("cpu")
    return ("cpu", "CUDA") if found & {"gpu", "cuda"} else ("cpu",)


def _register(native: ModuleType, label: str, platforms: Sequence[str]) -> None:
    for platform in platforms:
        _register_platform(native, platform)
        _register_target(native, export_target(label), platform)


@functools.cache
def _register_platform(native: ModuleType, platform: str) -> None:
    # First: XLA refuses a handler of which it does not know the state. A type for each platform:
    # JAX's CPU client and its CUDA plugin number theirs apart, and an id of one names another type
    # of the other.
    jax.ffi.register_ffi_type(_STATE_TYPE, native.state_type(platform), platform=platform)
    _register_target(native, CALL_TARGET, platform)
    if platform == "CUDA":
        handlers = native.handlers(platform, True)
        jax.ffi.register_ffi_target(RECORDED_TARGET, handlers, platform=platform)


@functools.cache
def _register_target(native: ModuleType, target: str, platform: str) -> None:
    jax.ffi.register_ffi_target(target, native.handlers(platform), platform=platform)


def cpu_devices() -> int:
    """How many devices run on this process's cores."""
    try:
        return len(jax.local_devices(backend="cpu"))
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return 1
