"""Locks: readers together, who changes things alone, reentrant; circles of threads are told."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from jaxtorch_bridge import ConcurrencyError
from jaxtorch_bridge.torchside.closure import locks
from jaxtorch_bridge.torchside.closure.closure_state import ClosureState
from jaxtorch_bridge.torchside.closure.locks import Lock, Locks, locks_of
from waiting import PATIENCE_SECONDS, until


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


@pytest.fixture(autouse=True)
def everything_is_given_back():
    yield
    assert not locks._holding
    assert not locks._waiting


def reading(*held):
    return Locks((lock, False) for lock in held)


def alone(*held):
    return reading(*held).alone()


def test_readers_hold_a_lock_together_and_who_changes_things_holds_it_alone():
    lock = Lock()
    together = threading.Barrier(3, timeout=PATIENCE_SECONDS)
    inside = []

    def read():
        with reading(lock):
            together.wait()

    def write():
        with alone(lock):
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


def test_threads_go_in_the_order_in_which_they_came():
    lock, order, threads = Lock(), [], []

    def work(name, held):
        with held:
            order.append(name)

    with reading(lock):
        for count, (name, held) in enumerate(
            [("first", alone(lock)), ("reader", reading(lock)), ("second", alone(lock))]
        ):
            threads.append(in_thread(lambda name=name, held=held: work(name, held))[0])
            until(lambda count=count: len(locks._waiting) == count + 1)
        with reading(lock):  # the thread that reads already may go on reading
            assert order == []
    for thread in threads:
        thread.join(10)
    assert order == ["first", "reader", "second"]


def test_who_waits_for_one_lock_keeps_nobody_from_another_that_it_wants_too():
    busy, free = Lock(), Lock()
    with alone(busy):
        waiter, errors = in_thread(lambda: alone(busy, free).around(int)())
        until(lambda: locks._waiting)
        # This thread holds what the other waits for; waiting its turn would be for ever.
        with alone(free):
            pass
    waiter.join(10)
    assert not waiter.is_alive()
    assert not errors


def test_it_is_reentrant_in_every_combination():
    lock = Lock()
    for modes in ([True, True], [True, False, True], [False, False], [False, True, False]):
        held = [alone(lock) if mode else reading(lock) for mode in modes]
        for one in held:
            one.__enter__()
        for one in reversed(held):
            one.__exit__()


def test_a_reader_that_has_changed_things_reads_on_with_others():
    lock = Lock()
    with reading(lock):
        with alone(lock):
            other, _ = in_thread(lambda: reading(lock).around(lambda: None)())
            until(lambda: locks._waiting)
        other.join(10)
        assert not other.is_alive()


def _two_that_read_and_then_write(lock, _):
    return reading(lock), alone(lock)


def _two_modules_in_turn(one, other):
    return alone(one), alone(other)


@pytest.mark.parametrize("nesting", [_two_that_read_and_then_write, _two_modules_in_turn])
def test_two_threads_that_wait_for_each_other_are_told(nesting):
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    one, other = Lock(), Lock()
    if nesting is _two_that_read_and_then_write:
        other = one

    def work(*pair):
        outer, inner = nesting(*pair)
        with outer:
            both.wait()
            with inner:
                pass

    threads = [in_thread(lambda pair=pair: work(*pair)) for pair in ((one, other), (other, one))]
    for thread, _ in threads:
        thread.join(10)
        assert not thread.is_alive()
    found = [error for _, errors in threads for error in errors]
    assert [type(error) for error in found] == [ConcurrencyError]


def test_three_locks_in_two_orders_do_not_meet():
    first, second, third = Lock(), Lock(), Lock()
    orders = [alone(first) | reading(second), alone(second) | reading(first, third), alone(third)]
    threads = [
        in_thread(lambda held=held: [held.around(int)() for _ in range(500)])
        for held in (*orders, *orders)
    ]
    for thread, errors in threads:
        thread.join(60)
        assert not thread.is_alive()
        assert not errors


def test_an_exception_gives_all_locks_back():
    first, second = Lock(), Lock()

    def fails():
        assert locks._holding
        raise KeyError

    with pytest.raises(KeyError):
        (alone(second) | reading(first)).around(fails)()
    assert not locks._holding


def test_a_long_wait_is_told_of(monkeypatch, caplog):
    monkeypatch.setattr(locks, "_TOLD_SECONDS", 0.01)
    lock = Lock()
    with alone(lock):
        waiter, errors = in_thread(lambda: reading(lock).around(int)())
        until(lambda: caplog.records)
    waiter.join(10)
    assert not errors
    (record,) = caplog.records
    assert "waits for this thread inside of a JAX call" in record.getMessage()


def test_callables_over_a_module_and_over_a_part_of_it_share_a_lock():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    other = torch.nn.Linear(2, 2)
    whole = ClosureState(lambda x: net(x)).locks
    part = ClosureState(net[0]).locks
    apart = ClosureState(other).locks
    both = ClosureState(lambda x: other(net[1](x))).locks
    assert part.alone()._excludes(whole)
    assert not part._excludes(whole)
    assert not part.alone()._excludes(apart)
    assert both.alone()._excludes(whole)
    assert both.alone()._excludes(apart)


def test_locks_go_with_the_last_callable_that_needs_them():
    before = len(locks._locks)
    held = locks_of(["one", "two"])
    assert len(locks._locks) == before + 2
    del held
    assert len(locks._locks) == before


def test_a_long_wait_names_what_is_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(locks, "_TOLD_SECONDS", 0.0)
    module = torch.nn.Linear(2, 2)
    held = ClosureState(lambda x: module(x)).locks | locks.generator_locks()
    wanted = ClosureState(module).locks

    def wait():
        with wanted.alone():
            pass

    with held, caplog.at_level("WARNING", logger="jaxtorch_bridge"):
        thread, errors = in_thread(wait)
        until(lambda: caplog.messages)
    thread.join()
    assert not errors
    (words,) = caplog.messages
    assert "has waited 0 s for `Linear`, in use by torch functions on other threads" in words
