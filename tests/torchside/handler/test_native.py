"""What the native module hands out for each platform."""

from __future__ import annotations

import ctypes

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
