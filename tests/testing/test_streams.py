"""What `check_streams` says; whether it is right is for `tests/gpu`."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch

from jaxtorch_bridge import StreamOrderError, jax_callable
from jaxtorch_bridge.testing import check_streams, streams
from jaxtorch_bridge.testing.late_kernels import SOURCE
from jaxtorch_bridge.testing.streams import CASES, StreamCase


@pytest.fixture
def two_gpus(monkeypatch):
    """As far as the choice of cases looks at them."""
    monkeypatch.setattr(streams, "_cupy", lambda: None)
    monkeypatch.setattr(streams, "LateKernels", lambda cupy, milliseconds: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(jax, "devices", lambda platform: [0, 1])


def case(name, *found, devices=1):
    """One that finds these values in turn, where it has to find 1."""
    values = iter(found)
    return StreamCase(name, frozenset(), lambda s: [(np.full(3, next(values)), 1.0)], devices)


def test_it_runs_each_case_eagerly_and_jitted_several_times(two_gpus):
    ran = []

    def run(setting):
        ran.append(setting.jitted)
        return [(np.ones(3), 1.0)]

    cases = [StreamCase("one", frozenset(), run), case("two", *[1.0] * 6, devices=2)]
    assert check_streams(jax_callable, cases=cases) == ["one", "two"]
    assert ran == [False] * 3 + [True] * 3


def test_it_leaves_out_what_takes_more_gpus(two_gpus):
    cases = [case("one", *[1.0] * 6), case("three", devices=3)]
    assert check_streams(jax_callable, cases=cases) == ["one"]


def test_it_says_all_that_was_out_of_order(two_gpus):
    cases = [case("one", 1.0, 0.0, *[1.0] * 3), case("two", *[1.0] * 6), case("three", 2.0, 3.0)]
    with pytest.raises(StreamOrderError) as raised:
        check_streams(jax_callable, cases=cases)
    words = str(raised.value)
    assert words.startswith("3 of 6 runs read what had not been written yet")
    assert "one (eager): expected 1.0 everywhere, got [0.0]" in words
    assert "three (eager): expected 1.0 everywhere, got [2.0]" in words
    assert "three (jitted): expected 1.0 everywhere, got [3.0]" in words
    assert "two" not in words


def test_each_edge_has_cases_that_need_it_and_names_are_told_apart():
    assert {edge for one in CASES for edge in one.needs} == {"current", "before", "after"}
    assert len({one.name for one in CASES}) == len(CASES)


def test_without_a_gpu_or_cupy_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="expected a CUDA device; torch sees none"):
        check_streams(jax_callable)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def none(platform):
        raise RuntimeError("no such platform")

    monkeypatch.setattr(jax, "devices", none)
    with pytest.raises(RuntimeError, match="expected a CUDA device; JAX sees none"):
        check_streams(jax_callable)
    monkeypatch.setattr(jax, "devices", lambda platform: [0])
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match="expected CuPy; install cupy-cuda13x"):
        check_streams(jax_callable)


# What CUDA has for kernels, for a compiler that knows nothing of it: one thread after the other.
STUBS = """
#define __global__
struct Axis { int x; };
static Axis blockIdx, blockDim, threadIdx;
static long long ticks = 0;
static long long clock64() { return ++ticks; }
extern "C" void place(int block, int width, int thread) {
  blockIdx.x = block; blockDim.x = width; threadIdx.x = thread;
}
extern "C" long long ticks_so_far() { return ticks; }
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "late.cc").write_text(STUBS + SOURCE)
    library = folder / "late.so"
    subprocess.run(
        ["g++", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, folder / "late.cc"],
        check=True,
    )
    found = ctypes.CDLL(str(library))
    found.ticks_so_far.restype = ctypes.c_longlong
    return found


def run_everywhere(library, kernel, *args, blocks=2, width=4):
    for block in range(blocks):
        for thread in range(width):
            library.place(block, width, thread)
            kernel(*args)


def test_kernels_wait_and_write_what_is_theirs(kernels):
    x, y = np.arange(6, dtype=np.float32), np.full(8, -1, np.float32)
    at = [array.ctypes.data_as(ctypes.c_void_p) for array in (x, y)]
    rest = (ctypes.c_float(2.5), ctypes.c_longlong(100), ctypes.c_int(6))
    before = kernels.ticks_so_far()
    run_everywhere(kernels, kernels.late_add, *at, *rest)
    assert y.tolist() == [*(x + 2.5), -1, -1]
    assert kernels.ticks_so_far() - before >= 8 * 100
    run_everywhere(kernels, kernels.late_fill, at[1], *rest)
    assert y.tolist() == [2.5] * 6 + [-1, -1]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no compiler for CUDA")
def test_kernels_compile_for_cuda(tmp_path):
    (tmp_path / "late.cu").write_text(SOURCE)
    command = ["nvcc", "-arch=sm_90", "-ptx", "-o", tmp_path / "late.ptx", tmp_path / "late.cu"]
    subprocess.run(command, check=True)
    text = (tmp_path / "late.ptx").read_text()
    assert all(f".visible .entry {name}(" in text for name in ("late_add", "late_fill"))
