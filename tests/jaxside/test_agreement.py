"""What the processes of a run tell each other of an op, with a dictionary for their store."""

from __future__ import annotations

import re
import threading

import jax
import pytest

from jaxtorch_bridge import settings
from jaxtorch_bridge.jaxside import process_agreement as processes
from jaxtorch_bridge.jaxside.process_agreement import Agreement
from waiting import PATIENCE_SECONDS, until

KEY, OTHER = "layer@0/0123", "layer@0/4567"


class Store(dict):
    def key_value_set(self, name, value, allow_overwrite):
        if not allow_overwrite and name in self:
            raise RuntimeError("ALREADY_EXISTS")
        self[name] = value

    def key_value_dir_get(self, folder):
        assert folder.endswith("/")
        return [(name, value) for name, value in list(self.items()) if name.startswith(folder)]


@pytest.fixture
def store():
    return Store()


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(processes, "_STANDOFF_SECONDS", 0.2)
    monkeypatch.setattr(settings, "process_timeout_seconds", PATIENCE_SECONDS)


def gives_up(agreement):
    """What a process is told that waits for one that does not come."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "process_timeout_seconds", 1)
        return agreement(KEY, True, jax.device_count())


def ask(store, *calls):
    """What each process is told; a call is (process, key, held)."""
    found = {}

    def one(place, agreement, key, held):
        found[place] = agreement(key, held, jax.device_count())

    threads = [threading.Thread(target=one, args=(i, *call)) for i, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[place] for place in range(len(calls))]


def test_all_hold_it(store):
    three = [Agreement(store, process, 3) for process in range(3)]
    assert ask(store, *((one, KEY, True) for one in three)) == ["", "", ""]


def test_what_was_agreed_is_not_asked_again(store):
    first, second = (Agreement(store, process, 2) for process in range(2))
    ask(store, (first, KEY, True), (second, KEY, True))
    store.clear()
    assert first(KEY, True, jax.device_count()) == ""
    assert not store


def test_programs_on_some_devices_only_ask_nobody(store):
    assert Agreement(store, 0, 2)(KEY, True, jax.device_count() + 1) == ""
    assert not store


def test_no_time_to_wait_asks_nobody_but_says_what_is_missing(store):
    settings.process_timeout_seconds = 0
    first, second = (Agreement(store, process, 2) for process in range(2))
    assert first(KEY, True, jax.device_count()) == ""
    assert not store
    assert second(KEY, False, jax.device_count()) == ""
    assert "missing" in store.values()


def test_a_process_without_it_is_named(store):
    first, second, third = (Agreement(store, process, 3) for process in range(3))
    told = ask(store, (first, KEY, True), (second, KEY, False), (third, KEY, False))
    assert told[1:] == ["", ""]  # they fail by themselves
    # The first word that says so decides; the other may not have come yet.
    words = r"`layer@0` in every process; process(es)? [12](, 2)? do(es)? not hold it"
    assert re.search(words, told[0])


def test_a_second_try_forgets_what_was_missing_in_the_first(store):
    first, second = (Agreement(store, process, 2) for process in range(2))
    ask(store, (first, KEY, True), (second, KEY, False))
    assert ask(store, (first, KEY, True), (second, KEY, True)) == ["", ""]


def test_who_comes_late_hears_of_the_first_try_although_the_second_has_begun(store):
    first, second = (Agreement(store, process, 2) for process in range(2))
    second(KEY, False, jax.device_count())
    told = []
    again = threading.Thread(target=lambda: told.append(second(KEY, True, jax.device_count())))
    again.start()
    until(lambda: any(name.endswith("/2/1") for name in list(store)))
    assert "process 1 does not hold it" in first(KEY, True, jax.device_count())
    assert first(KEY, True, jax.device_count()) == ""
    again.join()
    assert told == [""]


def test_nobody_runs_alone_after_another_has_given_up(store):
    first, second = (Agreement(store, process, 2) for process in range(2))
    assert "process 1 has not come to it" in gives_up(first)
    assert "process 1 has not come to it" in second(KEY, True, jax.device_count())
    assert ask(store, (first, KEY, True), (second, KEY, True)) == ["", ""]


def test_a_store_out_of_reach_is_an_error(store):
    class Gone(Store):
        def key_value_set(self, name, value, allow_overwrite):
            if name.endswith("verdict"):
                raise RuntimeError("UNAVAILABLE")
            super().key_value_set(name, value, allow_overwrite)

    gone = Gone()
    first, second = (Agreement(gone, process, 2) for process in range(2))
    second._put(f"ops/{processes._escaped(KEY)}/1/1", "held")
    with pytest.raises(RuntimeError, match="UNAVAILABLE"):
        first(KEY, True, jax.device_count())


def test_different_ops_are_named_before_the_time_is_over(store):
    first, second = (Agreement(store, process, 2) for process in range(2))
    told = ask(store, (first, KEY, True), (second, OTHER, True))
    assert f"(op key {KEY}), process 1 has {OTHER}" in told[0]
    assert f"(op key {OTHER}), process 0 has {KEY}" in told[1]


def test_an_op_that_was_agreed_before_is_no_difference(store):
    first, second = (Agreement(store, process, 2) for process in range(2))
    ask(store, (first, OTHER, True), (second, OTHER, True))
    assert "process 1 has not come to it within" in gives_up(first)


def test_keys_that_begin_alike_are_different_ops(store):
    first, second = (Agreement(store, process, 2) for process in range(2))
    ask(store, (second, f"{KEY}/forward", False))
    assert "has not come to it" in gives_up(first)


def test_numbers_of_functions_that_look_alike_do_not_count(store):
    first, second = (Agreement(store, process, 2) for process in range(2))
    calls = (first, f"{KEY}#2/forward/wrt0", True), (second, f"{KEY}/forward/wrt0", True)
    assert ask(store, *calls) == ["", ""]


def test_a_run_of_one_process_has_nobody_to_ask():
    assert processes.agreement_of_this_run() is None
