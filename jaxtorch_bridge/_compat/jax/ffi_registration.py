"""When XLA takes FFI types and targets. Tried on jax 0.10.2 and 0.12.0.1.

JAX keeps those that come before a backend exists, and hands XLA the targets before the types that
they need, which XLA refuses. On CPUs nothing has to exist: the registry is the process's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from jax._src import xla_bridge as _xla_bridge
from jax._src.lib import _jax as _xla  # type: ignore[attr-defined]
from jax._src.lib import xla_client as _xla_client  # type: ignore[attr-defined]

_logger = logging.getLogger(__name__)


def open_platforms() -> tuple[str, ...]:
    """Platforms on which XLA takes types and targets here and now. Starts no backend."""
    # What JAX does itself right before it makes its CPU client, but for the order.
    _xla_client.register_custom_type_handler("cpu", _xla.register_custom_type)
    _xla_client.register_custom_call_handler("cpu", _xla.register_custom_call_target)
    return ("cpu", "CUDA") if "CUDA" in _xla_client._custom_callback_handler else ("cpu",)


def when_plugins_are_there(callback: Callable[[], None]) -> None:
    """Call when JAX has loaded its plugins, before it makes their clients; now if it has."""

    def call(c_api: Any) -> None:
        try:
            callback()
        except Exception:
            # JAX itself must go on. What failed is tried again by the first call.
            _logger.warning("jaxtorch_bridge: no FFI target registered", exc_info=True)

    _xla_bridge.register_plugin_callbacks(call)
