"""What JAX has set, loaded and started in this process.

Tried on JAX 0.10.0, 0.10.2, 0.11.2 and 0.12.0.
"""

from __future__ import annotations

import contextlib
from typing import Any

import jax
from jax._src import distributed as _distributed
from jax._src import util as _util


def jit_is_disabled() -> bool:
    """Whether the caller is under `jax.disable_jit`."""
    return bool(jax.config.jax_disable_jit)  # type: ignore[attr-defined]


def ask_for_cpu_devices(count: int) -> None:
    """Have JAX split the CPU into at least ``count`` devices, if it has not started yet."""
    if count > max(1, jax.config.jax_num_cpu_devices):  # type: ignore[attr-defined]
        with contextlib.suppress(RuntimeError):  # it has started
            jax.config.update("jax_num_cpu_devices", count)


def shared_store() -> Any | None:
    """The key-value store of `jax.distributed`; None where that was not initialised."""
    return _distributed.global_state.client


def cuda_versions() -> tuple[int, int] | None:
    """The CUDA runtime and the cuDNN that JAX has loaded, as those libraries number themselves."""
    from jax._src.lib import cuda_versions as found

    if found is None:
        return None
    return int(found.cuda_runtime_get_version()), int(found.cudnn_get_version())


def hold_weakly(kind: type) -> None:
    """Let JAX's caches of abstract evaluation refer to objects of this class only weakly.

    Equations carry the op as a parameter; held strongly, the newest few thousand would never
    be freed.
    """
    _util.weakref_cache_key_types.add(kind)
