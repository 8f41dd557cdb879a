"""The devices of both sides, and what each takes of their memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .checks import Check, fine, note, problem

_JAX_POOL = (
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
)
_TORCH_POOL = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
_DRIVER = Path("/proc/driver/nvidia/version")
# What JAX takes where nothing is set; see its page on GPU memory.
_USUAL_FRACTION = 0.75
_MOST_FRACTION = 0.9


@dataclass(frozen=True)
class Seen:
    """The devices of a process.

    Attributes:
        jax: Platform -> names of JAX's devices.
        default: JAX's default platform.
        torch: Names of torch's CUDA devices.
        torch_cuda: The CUDA version that torch was built with, or None.
        driver: Whether NVIDIA's driver is there.
        memory: For each GPU in use, who holds its memory now.
    """

    jax: Mapping[str, tuple[str, ...]]
    default: str
    torch: tuple[str, ...]
    torch_cuda: str | None
    driver: bool = False
    memory: tuple[str, ...] = ()


def devices_here() -> Seen:
    """The devices of this process."""
    import jax
    import torch

    from ...torchside.handler.gpu_memory import memory_words

    found: dict[str, tuple[str, ...]] = {}
    for device in jax.devices():
        found[device.platform] = (*found.get(device.platform, ()), device.device_kind)
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = tuple(torch.cuda.get_device_name(index) for index in range(cuda))
    held = tuple(memory_words().splitlines())
    return Seen(found, jax.default_backend(), names, torch.version.cuda, _DRIVER.exists(), held)


def examine_devices(seen: Seen) -> Iterator[Check]:
    """Compare the devices of both sides."""
    words = ", ".join(f"{len(kinds)} {name} ({kinds[0]})" for name, kinds in seen.jax.items())
    theirs = ", ".join(seen.torch) or f"the CPU (built for {seen.torch_cuda or 'the CPU alone'})"
    yield fine("devices", f"JAX has {words}; torch has {theirs}")
    gpus = seen.jax.get("gpu", seen.jax.get("cuda", ()))
    if gpus and not seen.torch:
        text = "JAX runs on a GPU that torch does not see, so calls there fail"
        remedy = "Install a torch build with CUDA, or keep JAX on the CPU: JAX_PLATFORMS=cpu"
        yield problem("devices", text, remedy)
    elif seen.torch and not gpus:
        text = "torch sees a GPU, JAX does not: calls run on the CPU"
        yield problem("devices", text, 'Install JAX with CUDA: pip install "jax[cuda12]" or 13')
    elif len(gpus) != len(seen.torch):
        text = f"JAX sees {len(gpus)} GPUs, torch {len(seen.torch)}"
        yield problem("devices", text, "Set CUDA_VISIBLE_DEVICES alike for both, before they start")
    if seen.driver and not gpus and not seen.torch:
        yield note("devices", "there is a driver of NVIDIA, but neither side uses a GPU")
    if seen.default not in ("cpu", "gpu", "cuda"):
        text = f"JAX's default platform is {seen.default}, where torch functions cannot run"
        yield problem("devices", text, "Set JAX_PLATFORMS=cpu or cuda")


def examine_memory(seen: Seen, environment: Mapping[str, str] = os.environ) -> Iterator[Check]:
    """Whether both memory pools fit on a GPU."""
    given = {name: environment[name] for name in (*_JAX_POOL, *_TORCH_POOL) if name in environment}
    words = ", ".join(f"{name}={value}" for name, value in given.items())
    # Only where both sides use a GPU do they share its memory.
    if not seen.torch or seen.default == "cpu":
        yield fine(
            "memory", f"on the CPU both allocate as they need{'; ' + words if words else ''}"
        )
        return
    yield note("memory", words or "no variable of the memory pools is set")
    yield from (note("memory", line) for line in seen.memory)
    if _grows(given):
        yield fine("memory", "JAX takes GPU memory as it needs it")
        return
    fraction = _fraction(given)
    if fraction is None:
        text = f"XLA_PYTHON_CLIENT_MEM_FRACTION is no number: {given[_JAX_POOL[1]]}"
        yield problem("memory", text, "Set it to a fraction such as 0.5")
    elif _JAX_POOL[1] not in given:
        text = f"JAX takes {_USUAL_FRACTION:.0%} of each GPU at its first use; torch has the rest"
        remedy = (
            "Set XLA_PYTHON_CLIENT_PREALLOCATE=false, or XLA_PYTHON_CLIENT_MEM_FRACTION to what "
            "JAX alone needs, before JAX starts"
        )
        yield problem("memory", text, remedy)
    elif fraction > _MOST_FRACTION:
        text = f"JAX takes {fraction:.0%} of each GPU at its first use; torch has hardly any"
        yield problem("memory", text, "Lower XLA_PYTHON_CLIENT_MEM_FRACTION")
    else:
        yield fine("memory", f"JAX takes {fraction:.0%} of each GPU at its first use")


def _grows(given: Mapping[str, str]) -> bool:
    return given.get(_JAX_POOL[0], "").lower() in ("false", "0") or given.get(
        _JAX_POOL[2], ""
    ).lower() in ("platform", "cuda_async")


def _fraction(given: Mapping[str, str]) -> float | None:
    try:
        # JAX also reads ".5".
        return float(given.get(_JAX_POOL[1], _USUAL_FRACTION))
    except ValueError:
        return None
