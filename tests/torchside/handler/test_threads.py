"""Torch's threads in XLA's threads: shared out, and the caller's own left alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch

from jaxtorch_bridge import BridgeWarning, jax_callable, settings
from jaxtorch_bridge._compat.torch.openmp import openmp
from jaxtorch_bridge.torchside.handler import thread_counts as threads
from jaxtorch_bridge.torchside.handler.thread_counts import cores, share_threads, threads_each

EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}


@pytest.fixture
def budget():
    """The setting, put back afterwards."""
    before = settings.torch_threads
    yield settings
    settings.torch_threads = before


def test_each_device_has_an_equal_share_and_at_least_one():
    assert threads_each(16, 4, own=64) == 4
    assert threads_each(4, 8, own=4) == 1
    assert threads_each(16, 1, own=2) == 16  # asked for
    assert threads_each(None, 1, own=1) == 1  # OMP_NUM_THREADS=1
    assert threads_each(None, 1, own=1000) == cores()
    assert threads_each(None, 1000, own=8) == 1


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True])
def test_settings_that_are_no_number_of_threads_are_refused(value, budget):
    with pytest.raises(ValueError, match=r"settings\.torch_threads: expected a number of threads"):
        budget.torch_threads = value


def test_the_callers_own_thread_keeps_its_number(budget):
    before = torch.get_num_threads()
    budget.torch_threads = before + 3
    seen = []

    def look(x):
        seen.append(torch.get_num_threads())
        return x + 1

    f = jax_callable(look)
    jax.block_until_ready(jax.jit(f)(jnp.ones(3)))
    f(jnp.ones(4))
    assert torch.get_num_threads() == before
    assert set(seen) == {before}


SEEN = """
import os, threading
import jax, jax.numpy as jnp, torch
from jax.sharding import AxisType, PartitionSpec as P
from jaxtorch_bridge import jax_callable, settings

torch.set_num_threads(3)
main = threading.get_ident()
seen = set()

def look(x):
    if type(x) is torch.Tensor and threading.get_ident() != main:
        x = x @ x  # uses the pool, were it larger
        seen.add(torch.get_num_threads())
    return x + 1

mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))

def call(rows):
    f = jax_callable(look)
    run = jax.jit(jax.shard_map(
        lambda x: f(x[0])[None], mesh=mesh, in_specs=P("d"), out_specs=P("d"), check_vma=False))
    seen.clear()
    for _ in range(5):
        jax.block_until_ready(run(jnp.ones((8, rows, rows))))
    return sorted(seen)

settings.torch_threads = BUDGET
found = [call(200)]
settings.torch_threads = 16
found.append(call(201))
settings.torch_threads = None
found.append(call(202))
print(found, torch.get_num_threads())
later = []
thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
thread.start(); thread.join()
print(later)
"""


def test_xlas_threads_take_their_share_and_follow_the_setting(run_python):
    if openmp() is None:
        pytest.skip("torch has no OpenMP here")
    share = max(1, min(3, cores() // 8))
    found, later = run_python(f"BUDGET = 24\n{SEEN}", env=EIGHT).splitlines()
    assert found == f"[[3], [2], [{share}]] 3"
    assert later == "[3]"  # the user's new threads take what the user set


def test_without_openmp_nothing_is_done_and_a_setting_is_warned_of(monkeypatch, budget):
    monkeypatch.setattr(threads, "openmp", lambda: None)
    monkeypatch.setattr(threads, "_applied", None)
    share_threads(2)  # nobody asked for anything
    budget.torch_threads = 4
    with pytest.warns(BridgeWarning, match="settings.torch_threads has no effect"):
        share_threads(2)
    share_threads(2)
    monkeypatch.undo()


def test_without_a_library_to_ask_there_is_no_openmp(monkeypatch):
    monkeypatch.setattr(torch.__config__, "parallel_info", lambda: "ATen parallel backend: native")
    assert openmp.__wrapped__() is None
