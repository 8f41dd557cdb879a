"""Devices, memory pools, libraries, threads and tapes as they might be, and tapes as they are."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from jaxtorch_bridge import jax_callable, settings
from jaxtorch_bridge.tools.doctor.devices import Seen, examine_devices, examine_memory
from jaxtorch_bridge.tools.doctor.libraries import examine_libraries, loaded_libraries
from jaxtorch_bridge.tools.doctor.tapes import TapesSeen, examine_tapes, tapes_here
from jaxtorch_bridge.tools.doctor.threads import ThreadsSeen, examine_threads
from jaxtorch_bridge.torchside.derive.tape.tape_table import TAPES

CPU = Seen({"cpu": ("cpu",)}, "cpu", (), None)
GPU = Seen({"gpu": ("NVIDIA H100",)}, "gpu", ("NVIDIA H100",), "12.9")

MAPS = """\
7f00-7f01 r-xp 00000000 08:01 11 /env/nvidia/cudnn/lib/libcudnn.so.9
7f01-7f02 r--p 00000000 08:01 11 /env/nvidia/cudnn/lib/libcudnn.so.9
7f02-7f03 r-xp 00000000 08:01 12 /usr/local/cuda/lib64/libcudart.so.11.0
7f03-7f04 r-xp 00000000 08:01 13 /env/nvidia/cuda_runtime/lib/libcudart.so.12
7f04-7f05 r-xp 00000000 08:01 14 /env/torch/lib/libgomp-a34b.so.1
7f05-7f06 r-xp 00000000 08:01 15 /env/sklearn/libiomp5.so
7f06-7f07 r-xp 00000000 08:01 16 /env/torch/lib/libtorch_cuda.so
7f07-7f08 rw-p 00000000 00:00 0
7f08-7f09 r-xp 00000000 08:01 17 /a folder with spaces/libnccl.so.2
"""


def problems(checks):
    return [(one.text, one.remedy) for one in checks if one.state == "problem"]


def test_devices_that_fit():
    assert problems([*examine_devices(CPU), *examine_devices(GPU)]) == []


@pytest.mark.parametrize(
    ("seen", "text", "remedy"),
    [
        (Seen({"gpu": ("H100",)}, "gpu", (), None), "that torch does not see", "JAX_PLATFORMS=cpu"),
        (Seen({"cpu": ("cpu",)}, "cpu", ("H100",), "12.9"), "JAX does not", "jax[cuda12]"),
        (
            Seen({"gpu": ("H100",) * 2}, "gpu", ("H100",), "12.9"),
            "JAX sees 2 GPUs, torch 1",
            "CUDA_VISIBLE_DEVICES",
        ),
        (Seen({"tpu": ("v5",)}, "tpu", (), None), "platform is tpu", "JAX_PLATFORMS"),
    ],
)
def test_devices_that_do_not_fit(seen, text, remedy):
    ((found, advice),) = problems(examine_devices(seen))
    assert text in found
    assert remedy in advice


def test_a_gpu_that_nobody_uses():
    checks = list(examine_devices(Seen({"cpu": ("cpu",)}, "cpu", (), None, driver=True)))
    assert [one.state for one in checks] == ["fine", "note"]


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({}, "JAX takes 75% of each GPU at its first use; torch has the rest"),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".95"}, "torch has hardly any"),
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": "half"}, "is no number: half"),
    ],
)
def test_memory_pools_that_clash(environment, text):
    ((found, advice),) = problems(examine_memory(GPU, environment))
    assert text in found
    assert advice


@pytest.mark.parametrize(
    "environment",
    [
        {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4"},
        {"XLA_PYTHON_CLIENT_ALLOCATOR": "platform"},
    ],
)
def test_memory_pools_that_fit(environment):
    assert problems(examine_memory(GPU, environment)) == []
    assert problems(examine_memory(CPU, {})) == []


def test_both_pools_are_shown():
    seen = replace(GPU, memory=("cuda:0 has 80.00 GiB: torch took 1.00 GiB",))
    texts = [check.text for check in examine_memory(seen, {})]
    assert "cuda:0 has 80.00 GiB: torch took 1.00 GiB" in texts


def test_libraries_in_two_versions():
    loaded = loaded_libraries(MAPS)
    assert set(loaded) == {"cudnn", "cudart", "gomp", "iomp5", "nccl"}
    assert loaded["nccl"] == {"/a folder with spaces/libnccl.so.2": "2"}
    told = {
        "torch's CUDA": "12.9",
        "JAX's CUDA": "13.0",
        "torch's cuDNN": None,
        "JAX's cuDNN": None,
    }
    checks = list(examine_libraries(loaded, told))
    (twice, majors) = problems(checks)
    assert twice[0].startswith("cudart is loaded in 2 versions: /env/nvidia/cuda_runtime/lib/")
    assert "LD_LIBRARY_PATH" in twice[1]
    assert majors[0] == "torch's CUDA 12 and JAX's CUDA 13: different major versions"
    (openmp,) = (one for one in checks if one.state == "note")
    assert openmp.text.startswith("2 OpenMP libraries")


def test_no_cuda():
    (check,) = examine_libraries({}, {"torch's CUDA": None})
    assert (check.state, check.text) == ("fine", "no CUDA library is loaded")


@pytest.mark.parametrize(
    ("seen", "states"),
    [
        (ThreadsSeen(8, 8, 1, 8, None, True), ["fine"]),
        (ThreadsSeen(8, 16, 1, 8, None, True), ["fine", "problem"]),
        (ThreadsSeen(8, 8, 4, 4, 16, True), ["fine", "problem"]),
        (ThreadsSeen(2, 2, 8, 1, None, True), ["fine", "note"]),
        (ThreadsSeen(8, 8, 1, 8, None, False), ["fine", "note"]),
    ],
)
def test_threads(seen, states):
    assert [one.state for one in examine_threads(seen)] == states


GIB = 1 << 30


def test_tapes_by_device():
    seen = (TapesSeen("cpu", 8192, 4 * GIB, 16 * GIB), TapesSeen("cuda:0", GIB, 8 * GIB, 64 * GIB))
    checks = list(examine_tapes(seen, None))
    assert [(one.state, one.text) for one in checks] == [
        (
            "fine",
            "cpu: 8192 bytes kept for backward passes, of at most 4096 MiB "
            "(its share, as settings.tape_bytes is None)",
        ),
        (
            "fine",
            "cuda:0: 1024 MiB kept for backward passes, of at most 8192 MiB "
            "(its share, as settings.tape_bytes is None)",
        ),
    ]


def test_tapes_that_may_take_more_than_there_is():
    seen = (TapesSeen("cpu", 0, 32 * GIB, 64 * GIB), TapesSeen("cuda:0", 0, 32 * GIB, 16 * GIB))
    checks = list(examine_tapes(seen, 32 * GIB))
    assert [one.state for one in checks] == ["fine", "fine", "problem"]
    assert checks[0].text.endswith("of at most 32768 MiB (as set)")
    assert problems(checks) == [
        (
            "cuda:0: 32768 MiB may be kept for backward passes, of 16384 MiB of memory",
            "Lower jaxtorch_bridge.settings.tape_bytes",
        )
    ]


def test_tapes_that_are_switched_off():
    (check,) = examine_tapes((TapesSeen("cpu", 0, 0, GIB),), 0)
    assert check.state == "note"
    assert "settings.tape_bytes is 0: nothing is kept" in check.text


def test_tapes_of_this_process(monkeypatch):
    TAPES.clear()
    monkeypatch.setattr(settings, "tape_bytes", 12345678)
    x = jnp.ones(4096)
    _, pull = jax.vjp(jax_callable(lambda x: x.sin().exp()), x)
    before = tapes_here()[0]
    # `sin` saves its input, which is XLA's, and `exp` its result.
    assert (before.device, before.held_bytes) == ("cpu", 4 * 4096)
    assert before.limit_bytes == 12345678 < before.memory_bytes
    pull(x)
    assert tapes_here()[0].held_bytes == 0
