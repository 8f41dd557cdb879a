"""The cores, and the threads that want them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .checks import Check, fine, note, problem


@dataclass(frozen=True)
class ThreadsSeen:
    """Threads of a process.

    Attributes:
        cores: That it may run on.
        torch: What torch uses in one thread of the program.
        devices: JAX's CPU devices.
        each: What torch uses in each of XLA's threads.
        budget: ``settings.torch_threads``.
        openmp: Whether torch uses OpenMP.
    """

    cores: int
    torch: int
    devices: int
    each: int
    budget: int | None
    openmp: bool


def threads_here() -> ThreadsSeen:
    """The threads of this process."""
    import jax
    import torch

    from ..._compat.torch.openmp import openmp
    from ...config import settings
    from ...torchside.handler.thread_counts import cores, threads_each

    try:
        devices = len(jax.local_devices(backend="cpu"))
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        devices = 1
    own = torch.get_num_threads()
    each = threads_each(settings.torch_threads, devices, own)
    return ThreadsSeen(cores(), own, devices, each, settings.torch_threads, openmp() is not None)


def examine_threads(seen: ThreadsSeen) -> Iterator[Check]:
    """Compare threads with cores."""
    yield fine(
        "threads",
        f"{seen.cores} cores; torch uses {seen.torch} threads in yours, and {seen.each} in each of "
        f"XLA's, one for each of {seen.devices} CPU device{'s' * (seen.devices != 1)}",
    )
    if seen.torch > seen.cores:
        text = f"torch uses {seen.torch} threads on {seen.cores} cores"
        remedy = f"Set OMP_NUM_THREADS={seen.cores}, or call torch.set_num_threads({seen.cores})"
        yield problem("threads", text, remedy)
    if seen.each * seen.devices > seen.cores:
        text = (
            f"{seen.devices} CPU devices with {seen.each} threads of torch each on "
            f"{seen.cores} cores"
        )
        if seen.budget is not None and seen.budget > seen.cores:
            remedy = f"Lower jaxtorch_bridge.settings.torch_threads to {seen.cores}"
            yield problem("threads", text, remedy)
        else:
            yield note("threads", text)
    if not seen.openmp:
        yield note("threads", "torch uses no OpenMP: settings.torch_threads has no effect")
