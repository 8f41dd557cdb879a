"""Garbage collection is off while torch loads its tracing tools, and comes back on any way out."""

from __future__ import annotations

import gc

import pytest

from jaxtorch_bridge._compat import torch_fakes, torch_graphs
from jaxtorch_bridge._compat.torch_fakes import loading


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch):
    monkeypatch.setattr(torch_fakes, "_loaded", set())
    assert gc.isenabled()
    yield
    gc.enable()


def test_it_is_off_the_first_time_only():
    for first in (True, False):
        with loading("a part"):
            assert gc.isenabled() is not first
        assert gc.isenabled()


def test_it_comes_back_after_a_failure_and_is_off_the_next_time():
    for _ in range(2):
        with pytest.raises(ImportError, match=r"^False$"), loading("a part"):
            raise ImportError(gc.isenabled())
        assert gc.isenabled()


def test_a_caller_who_has_switched_it_off_finds_it_off():
    gc.disable()
    with loading("a part"):
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_parts_within_parts():
    with loading("outer"):
        with loading("inner"):
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_loading_is_over_when_tracing_begins():
    torch_graphs.load()
    assert gc.isenabled()
    assert {"fake tensors", "graphs"} <= torch_fakes._loaded
