"""Locks: readers together, writers alone, reentrant, and never a wait for ever without a word."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from jaxtorch_bridge import ConcurrencyError
from jaxtorch_bridge.torchside.closure import locks
from jaxtorch_bridge.torchside.closure.closure_state import ClosureState
from jaxtorch_bridge.torchside.closure.locks import Locks, ReadWriteLock, locks_of


def in_thread(work):
    """Start a thread; its exception, if any, ends up in the list that comes back with it."""
    errors = []

    def run():
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, errors


def is_free(lock):
    return lock._writer is None and not lock._readers and not lock._waiting_writers


def test_readers_hold_a_lock_together_and_a_writer_holds_it_alone():
    lock = ReadWriteLock()
    together = threading.Barrier(3, timeout=10)
    inside = []

    def read():
        with Locks([(lock, False)]):
            together.wait()

    def write():
        with Locks([(lock, True)]):
            inside.append(1)
            assert len(inside) == 1
            time.sleep(0.01)
            inside.pop()

    for work, count in ((read, 3), (write, 4)):
        threads = [in_thread(work) for _ in range(count)]
        for thread, errors in threads:
            thread.join(10)
            assert not thread.is_alive()
            assert not errors


def test_a_writer_waits_for_readers_and_goes_before_new_ones():
    lock = ReadWriteLock()
    order = []
    lock.acquire(False)
    writer, _ = in_thread(lambda: (lock.acquire(True), order.append("writer"), lock.release()))
    while not lock._waiting_writers:
        time.sleep(0.001)
    reader, _ = in_thread(lambda: (lock.acquire(False), order.append("reader"), lock.release()))
    time.sleep(0.02)
    lock.acquire(False)  # the thread that reads already may go on reading
    lock.release()
    assert order == []
    lock.release()
    writer.join(10), reader.join(10)
    assert order == ["writer", "reader"]


def test_it_is_reentrant_in_every_combination():
    lock = ReadWriteLock()
    for modes in ([True, True], [True, False, True], [False, False], [False, True, False]):
        for mode in modes:
            lock.acquire(mode)
        for _ in modes:
            lock.release()
    assert is_free(lock)


def test_two_readers_that_both_want_to_write_are_told():
    lock = ReadWriteLock()
    both = threading.Barrier(2, timeout=10)

    def work():
        with Locks([(lock, False)]):
            both.wait()
            with Locks([(lock, True)]):
                pass

    threads = [in_thread(work) for _ in range(2)]
    for thread, _ in threads:
        thread.join(10)
    found = [error for _, errors in threads for error in errors]
    assert [type(error) for error in found] == [ConcurrencyError]
    assert is_free(lock)


def test_an_exception_gives_all_locks_back():
    first, second = ReadWriteLock(), ReadWriteLock()

    def fails():
        assert not is_free(first)
        assert not is_free(second)
        raise KeyError

    with pytest.raises(KeyError):
        Locks([(second, True), (first, False)]).around(fails)()
    assert is_free(first)
    assert is_free(second)


def test_waiting_for_a_call_that_is_inside_of_jax_ends_with_an_error(monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(locks, "_LOOK_SECONDS", 0.02)
    lock = ReadWriteLock()
    done = threading.Event()
    nested = eval("lambda: done.wait(10)", {"__name__": "jax._src.api", "done": done})
    held = threading.Event()

    def run():
        held.set()
        nested()

    holder, _ = in_thread(lambda: locks.Holding(run, Locks([(lock, True)]))())
    held.wait(10)
    with pytest.raises(ConcurrencyError, match="is itself inside of a JAX call"):
        lock.acquire(False)
    done.set()
    holder.join(10)
    with Locks([(lock, True)]):
        pass


def test_callables_over_a_module_and_over_a_part_of_it_share_a_lock():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    other = torch.nn.Linear(2, 2)
    whole = ClosureState(lambda x: net(x)).locks
    part = ClosureState(net[0]).locks
    apart = ClosureState(other).locks
    both = ClosureState(lambda x: other(net[1](x))).locks
    assert set(part._held) == set(whole._held)
    assert not set(part._held) & set(apart._held)
    assert set(both._held) == set(whole._held) | set(apart._held)


def test_locks_go_with_the_last_callable_that_needs_them():
    before = len(locks._locks)
    held = locks_of(["one", "two"])
    assert len(locks._locks) == before + 2
    del held
    assert len(locks._locks) == before
