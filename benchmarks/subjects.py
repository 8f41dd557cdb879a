"""The things that are compared: ways for a JAX program to call the same torch function."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from jaxtorch_bridge import jax_callable
from jaxtorch_bridge.torchside.handler.native_module import native

BRIDGE = "bridge"
PEER = "wrap-torch2jax"
TORCH = "torch eager"
XLA = "XLA's own"
NOOP = "FFI no-op"
CALLBACK = "pure_callback"

# Headings of ratios that every table of times may show.
OTHERS = {"of torch eager's": TORCH, "of the peer's": PEER}

_NOOP_TARGET = "jaxtorch_bridge_benchmarks.noop"


def bridge(function: Callable[..., Any]) -> Callable[..., Any]:
    """This package's form of a torch function."""
    return jax_callable(function)


@functools.cache
def _torch2jax() -> Callable[..., Any] | str:
    try:
        # The first import on a machine compiles an extension against torch: a minute or two.
        from wrap_torch2jax import torch2jax
    except Exception as error:  # A compiler that fails may raise anything.
        return f"{PEER} left out, it cannot be imported: {type(error).__name__}: {error}"
    return torch2jax  # type: ignore[no-any-return]


def peer(function: Callable[..., Any], *examples: torch.Tensor) -> Callable[..., Any] | None:
    """wrap-torch2jax's form of a torch function, or None where it cannot be imported."""
    torch2jax = _torch2jax()
    return None if isinstance(torch2jax, str) else torch2jax(function, *examples)


def peer_notes() -> list[str]:
    """Why the peer is missing, if it is."""
    found = _torch2jax()
    return [found] if isinstance(found, str) else []


def callback(function: Callable[..., torch.Tensor], result: Any) -> Callable[..., Any]:
    """A torch function behind `jax.pure_callback`."""
    # The arrays are read, not written.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

    def on_host(*arrays: Any) -> np.ndarray:
        tensors = [torch.from_numpy(np.asarray(array)) for array in arrays]
        return function(*tensors).numpy()

    return lambda *arrays: jax.pure_callback(on_host, result, *arrays)


def noop(result: Any) -> Callable[..., Any]:
    """An FFI call that leaves its output as it is: what any FFI call costs at least."""
    _register_noop()
    return lambda *arrays: jax.ffi.ffi_call(_NOOP_TARGET, result)(*arrays)


@functools.cache
def _register_noop() -> None:
    for platform in ("cpu", "CUDA") if jax.default_backend() == "gpu" else ("cpu",):
        jax.ffi.register_ffi_target(_NOOP_TARGET, native().noop_handler(), platform=platform)


def check_same(expected: Any, found: Any) -> None:
    """Variants are timed only if they compute the same."""
    for one, other in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-4, atol=1e-5)
