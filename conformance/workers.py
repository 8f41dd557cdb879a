"""Worker processes that may die, of a crash or of taking too long, without losing the run."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .outcome import Outcome
from .result import Result

_ROOT = Path(__file__).resolve().parent.parent
# For one way of one entry. Most take a tenth of a second, and importing all takes ten.
_LIMIT_SECONDS = 120.0
# What processes compile is not given back.
_TASKS_EACH = 400
_COMMAND = (sys.executable, "-m", "conformance.worker")


class Worker:
    """One process at a time, and a new one where it died or has done enough.

    Args:
        limit_seconds: How long one way of one entry may take.
        verbose: Whether what it prints is shown.
        command: What is run, in the folder above this one.
    """

    def __init__(
        self,
        *,
        limit_seconds: float = _LIMIT_SECONDS,
        verbose: bool = False,
        command: Sequence[str] = _COMMAND,
    ) -> None:
        """No process is started before the first task."""
        self._command = command
        self._limit_seconds = limit_seconds
        self._errors = None if verbose else subprocess.DEVNULL
        self._process: subprocess.Popen[str] | None = None
        self._done = 0

    def try_entry(self, entry: str, dtype: str, ways: Sequence[str]) -> Iterator[Result]:
        """What comes of an entry in these ways, one after another."""
        left = list(ways)
        while left:
            process = self._running()
            self._done += 1
            _write(process, json.dumps({"entry": entry, "dtype": dtype, "ways": left}))
            while left:
                answer = self._answer(process)
                if isinstance(answer, str):
                    self.close()
                    yield Result(entry, dtype, left.pop(0), Outcome("wrong", answer))
                    break
                if "way" not in answer:
                    outcome = Outcome(answer["kind"], answer["words"])
                    yield Result(entry, dtype, left.pop(0), outcome, answer["seconds"])

    def close(self) -> None:
        """End the process; another one is started when it is needed."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._done >= _TASKS_EACH:
            self.close()
        if self._process is None:
            self._done = 0
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                cwd=_ROOT,
            )
        return self._process

    def _answer(self, process: subprocess.Popen[str]) -> dict[str, Any] | str:
        """The next answer, or what the process died of."""
        late = threading.Event()

        def stop() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(self._limit_seconds, stop)
        timer.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith("\n"):
            return dict(json.loads(line))
        if late.is_set():
            return f"no result within {self._limit_seconds:g} s"
        return f"the process ended with {process.wait()}"


def _write(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # reading its answer says that it has ended


def try_all(
    tasks: Sequence[tuple[str, str, Sequence[str]]],
    processes: int,
    done: Callable[[Result], None],
    *,
    verbose: bool = False,
    backend: str | None = None,
) -> None:
    """Go over tasks of (entry, dtype, ways) in some processes; ``done`` is called one at a time."""
    waiting: queue.SimpleQueue[tuple[str, str, Sequence[str]]] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    one_at_a_time = threading.Lock()

    def serve() -> None:
        worker = Worker(verbose=verbose, command=(*_COMMAND, *([backend] if backend else [])))
        try:
            while True:
                for result in worker.try_entry(*waiting.get_nowait()):
                    with one_at_a_time:
                        done(result)
        except queue.Empty:
            return
        finally:
            worker.close()

    threads = [threading.Thread(target=serve) for _ in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
