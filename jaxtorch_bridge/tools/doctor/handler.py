"""The native FFI handler: whether it is there, and whether a call goes through it."""

from __future__ import annotations

from collections.abc import Iterator

from .checks import Check, fine, problem


def examine_handler() -> Iterator[Check]:
    """Load the handler and make one call on the default device."""
    import jax
    import numpy as np

    from ...decorator import jax_callable
    from ...torchside.handler.native_module import native

    try:
        module = native()
    except ImportError as error:
        remedy = "Build it: python -m pip install --force-reinstall --no-deps . (or make setup)"
        yield problem("handler", str(error), remedy)
        return
    yield fine("handler", f"loaded from {module.__file__}")
    device = jax.devices()[0]
    x = jax.device_put(np.arange(6, dtype=np.float32), device)
    try:
        found = np.asarray(jax.jit(jax_callable(lambda x: x * 2 + 1, name="doctor"))(x))
    except Exception as error:
        text = f"a call on {device} fails: {type(error).__name__}: {str(error).splitlines()[0]}"
        yield problem("handler", text, _remedy(device.platform))
        return
    if not np.array_equal(found, np.arange(6) * 2 + 1):
        text = f"a call on {device} gives {found.tolist()} for 2 * [0, 1, ... 5] + 1"
        yield problem("handler", text, "Do not use it; report this with the output of doctor.")
        return
    yield fine("handler", f"a jitted call on {device} gives what it should")


def _remedy(platform: str) -> str:
    if platform == "cpu":
        return "Build the native module anew against this jaxlib: make setup"
    return (
        "Install a torch build with CUDA of the same major version as JAX's, or stay on the CPU: "
        "JAX_PLATFORMS=cpu"
    )
