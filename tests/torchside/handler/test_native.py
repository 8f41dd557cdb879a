"""What the native module hands out for each platform."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys

import pytest

from jaxtorch_bridge.torchside.handler.native_module import native


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


_FAULTS = """
import ctypes, resource, sys

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "with":
    from jaxtorch_bridge.torchside.handler.native_library import native_library

    native_library()

SIZE = 3 << 20


def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(SIZE) for _ in range(16)]
    for block in blocks:
        ctypes.memset(block, 1, SIZE)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


faults(), faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other mallocs keep what is freed")
def test_what_a_call_has_freed_is_there_for_the_next():
    """48 MiB in blocks, as gradients of a small model take them: 12,288 pages."""

    def faults(how, **own):
        env = {name: value for name, value in os.environ.items() if "MALLOC" not in name} | own
        ran = subprocess.run(
            [sys.executable, "-c", _FAULTS, how], env=env, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return int(ran.stdout)

    assert faults("with") < 1000 < faults("without")
    # Who has chosen otherwise is heard.
    assert faults("with", MALLOC_TRIM_THRESHOLD_="131072") > 1000
