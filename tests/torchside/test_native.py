"""What the native module hands out for each platform."""

from __future__ import annotations

import ctypes

import pytest

from jaxtorch_bridge.torchside.native import native


def address(capsule) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, None)


@pytest.mark.parametrize("part", ["type_id", "type_info"])
def test_each_platform_has_a_state_type_of_its_own(part):
    """JAX's CPU client and its CUDA plugin number types apart: one id for both named another's."""
    cpu, cuda = (native().state_type(platform)[part] for platform in ("cpu", "CUDA"))
    assert address(cpu) != address(cuda)


def test_handlers_share_nothing_across_platforms():
    cpu, cuda = (native().handlers(platform) for platform in ("cpu", "CUDA"))
    assert cpu.keys() == cuda.keys() == {"instantiate", "execute"}
    assert not {address(c) for c in cpu.values()} & {address(c) for c in cuda.values()}


@pytest.mark.parametrize("ask", ["handlers", "state_type"])
def test_an_unknown_platform_is_an_error(ask):
    with pytest.raises(ValueError, match="expected the platform 'cpu' or 'CUDA', got 'tpu'"):
        getattr(native(), ask)("tpu")


AT_EXIT = """
import time, jax, jax.numpy as jnp, torch
from jax.sharding import PartitionSpec
from jaxtorch_bridge import jax_callable

calls = []

@jax_callable
def slow(x):
    if type(x) is torch.Tensor:
        calls.append(1)
        time.sleep(0.5)
    return x * 2

mesh = jax.make_mesh((8,), ("d",))
whole = PartitionSpec()
copies = jax.shard_map(slow, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)
jax.jit(copies)(jnp.ones(3))
while not calls:
    time.sleep(1e-3)
print("left")
"""


def test_a_process_ends_after_its_calls(run_python):
    """Python takes its lock away when it ends, and a call that asked for it then aborted."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    assert run_python(AT_EXIT, env=flags).strip() == "left"
