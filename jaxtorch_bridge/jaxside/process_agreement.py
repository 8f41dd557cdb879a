"""In a run of many processes, an op that one of them lacks is an error in all of them.

XLA makes the same executable in every process. A process that cannot fails at once; the others
would go on, and wait in the next collective for one that never comes. So when an executable is
made that runs on the devices of all processes, each says through the key-value store of
`jax.distributed` whether it holds the op, and waits for the others to say so. That happens once
for each op; nothing is asked when programs run, or in a run of one process.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import jax

from .._compat.jax.process import shared_store
from ..config import settings

_ROOT = "jaxtorch_bridge"
_VERDICT = "verdict"
_ALL_HOLD_IT = "held"
# How long two processes may wait for each other's word on different ops. Threads that compile at
# the same time may do so for a moment; a process that runs other code stays there.
_STANDOFF_SECONDS = 5.0
# The first pause, and the longest: pauses double.
_POLL_SECONDS = (0.005, 0.2)


def agreement_of_this_run() -> Agreement | None:
    """What the native handler asks; None where there is one process, or no store."""
    store = shared_store()
    if store is None or jax.process_count() == 1:
        return None
    return Agreement(store, jax.process_index(), jax.process_count())


class Agreement:
    """Whether all processes hold an op. Called by the native handler.

    The store has, for each op and each try to agree on it, a word of every process (``held`` or
    ``missing``) and one verdict. The first to know the verdict writes it, which the store allows
    once, and all follow it: if one gave up waiting, who comes a moment later must not run alone.
    For each process the store also has the op that it waits for, or waited for last.
    """

    def __init__(self, store: Any, process: int, processes: int) -> None:
        self._store = store
        self._process = str(process)
        self._others = [str(number) for number in range(processes) if number != process]
        # Keys without the number that tells twins apart: processes number theirs differently.
        self._agreed: set[str] = set()
        self._tries: dict[str, int] = {}

    def __call__(self, key: str, held: bool, devices: int) -> str:
        """What is wrong, or the empty string.

        Args:
            key: Of the op.
            held: Whether this process holds it.
            devices: How many devices the executable runs on.
        """
        # The programs of some processes only are left to themselves: who takes part in them is
        # not known here.
        if devices != jax.device_count():
            return ""
        key = _without_number(key)
        # One that lacks the op goes on all the same: the others wait for its word.
        if held and (key in self._agreed or not settings.process_timeout_seconds):
            return ""
        # A failed try fails in all, so the next one is the next one everywhere.
        self._tries[key] = number = self._tries.get(key, 0) + 1
        folder = f"ops/{_escaped(key)}/{number}"
        # Nothing where the op is missing: such a process waits for nobody.
        self._put(f"asked/{self._process}", key if held else "")
        self._put(f"{folder}/{self._process}", "held" if held else "missing")
        if not held:
            return ""  # the caller fails by itself, and the others by our word
        verdict = self._decide(folder, self._wait(key, folder))
        if verdict != _ALL_HOLD_IT:
            return f"ProcessMismatchError: {verdict}"
        self._agreed.add(key)
        return ""

    def _wait(self, key: str, folder: str) -> str:
        """The verdict, as far as this process can tell."""
        started = time.monotonic()
        pause, longest = _POLL_SECONDS
        elsewhere: Mapping[str, str] = {}
        since = started
        while True:
            words = self._read(folder)
            if _VERDICT in words:
                return words[_VERDICT]
            missing = [n for n in self._others if words.get(n) == "missing"]
            if missing:
                return _missing_words(key, missing)
            late = [n for n in self._others if n not in words]
            if not late:
                return _ALL_HOLD_IT
            asked = self._read("asked")
            now = time.monotonic()
            other = {n: asked[n] for n in late if asked.get(n, "") not in ("", key)}
            # The store keeps what a process asked for last; what all have agreed on blocks nobody.
            other = {n: found for n, found in other.items() if found not in self._agreed}
            # Only what stays the same is a standoff; each change starts the clock anew.
            if other != elsewhere:
                elsewhere, since = other, now
            if elsewhere and now - since > _STANDOFF_SECONDS:
                return _elsewhere_words(key, elsewhere, self._process)
            if now - started > settings.process_timeout_seconds:
                return _late_words(key, late, now - started)
            time.sleep(pause)
            pause = min(2 * pause, longest)

    def _decide(self, folder: str, verdict: str) -> str:
        """The verdict of all: ours, if nobody was faster."""
        try:
            self._put(f"{folder}/{_VERDICT}", verdict, once=True)
        except Exception:
            found = self._read(folder).get(_VERDICT)
            if found is None:  # not that somebody was faster, but that the store is out of reach
                raise
            return found
        return verdict

    def _put(self, name: str, value: str, *, once: bool = False) -> None:
        self._store.key_value_set(f"{_ROOT}/{name}", value, allow_overwrite=not once)

    def _read(self, folder: str) -> dict[str, str]:
        found = self._store.key_value_dir_get(f"{_ROOT}/{folder}/")
        return {name.rpartition("/")[2]: value for name, value in found}


def _without_number(key: str) -> str:
    """Live ops that look alike are numbered in the order in which each process made them."""
    return re.sub(r"[#~]\d+", "", key)


def _escaped(key: str) -> str:
    """A key as one step of a path in the store."""
    return key.replace("%", "%25").replace("/", "%2F")


def _name(key: str) -> str:
    return key.partition("/")[0]


def _list(numbers: list[str]) -> str:
    return f"process{'es' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def _missing_words(key: str, missing: list[str]) -> str:
    verb = "do" if len(missing) > 1 else "does"
    return (
        f"this program calls the torch function `{_name(key)}` in every process; {_list(missing)} "
        f"{verb} not hold it (op key {key}). Import the module that defines it there, in the "
        "version that the program was made with."
    )


def _elsewhere_words(key: str, elsewhere: Mapping[str, str], process: str) -> str:
    found = "; ".join(f"process {number} has {other}" for number, other in elsewhere.items())
    return (
        f"expected the same program in every process; process {process} calls the torch function "
        f"`{_name(key)}` (op key {key}), {found}. Run the same code, with the same contracts, "
        "shapes and versions, in every process."
    )


def _late_words(key: str, late: list[str], seconds: float) -> str:
    verb = "have" if len(late) > 1 else "has"
    return (
        f"this program calls the torch function `{_name(key)}` (op key {key}) in every process; "
        f"{_list(late)} {verb} not come to it within {seconds:.0f} seconds. Look for an earlier "
        "error there; if it is only slow, raise "
        "jaxtorch_bridge.settings.process_timeout_seconds (0: do not wait)."
    )
