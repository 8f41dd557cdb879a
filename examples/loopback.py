"""Run one script in several processes of this machine, as `jax.distributed` wants them.

A worker gets ``--rank``, ``--count`` and ``--port`` in front of its own arguments, and works
within `joined`. If one of them fails, the others are stopped: they would wait for it in their next
collective. Nothing is left running, whatever happens here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# How long the others may go on after one has failed: long enough to say what they know of it.
GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Finished:
    """How one worker ended.

    Attributes:
        rank: Which one.
        code: Its exit code; negative if a signal ended it.
        output: What it wrote to stdout and stderr.
        stopped: It was stopped because another one failed or the time was over.
    """

    rank: int
    code: int
    output: str
    stopped: bool


# ---- In the process that starts them -------------------------------------------------------------


def run_workers(
    script: Path,
    count: int,
    arguments: Sequence[str] = (),
    *,
    timeout_seconds: float,
    env: Mapping[str, str] | None = None,
) -> list[Finished]:
    """Run ``count`` workers to their end, and say how each of them ended."""
    port = str(free_port())
    surroundings = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **(env or {})}
    started: list[tuple[subprocess.Popen[str], IO[str]]] = []
    deadline = time.monotonic() + timeout_seconds
    try:
        for rank in range(count):
            # To a file: a pipe that nobody reads would fill up and stop its writer.
            output = tempfile.TemporaryFile("w+")  # noqa: SIM115
            place = ["--rank", str(rank), "--count", str(count), "--port", port]
            worker = subprocess.Popen(
                [sys.executable, str(script), *place, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=surroundings,
                text=True,
                start_new_session=True,
            )
            started.append((worker, output))
        running = wait_for([worker for worker, _ in started], deadline)
    finally:
        for worker, _ in started:
            stop(worker)
    ends = []
    for rank, (worker, output) in enumerate(started):
        with output:
            output.seek(0)
            ends.append(Finished(rank, worker.returncode, output.read(), worker in running))
    return ends


def wait_for(
    workers: Sequence[subprocess.Popen[str]], deadline: float
) -> list[subprocess.Popen[str]]:
    """Wait until all have ended, one has failed, or the time is over; which still run then."""
    failed = False
    while True:
        running = [worker for worker in workers if worker.poll() is None]
        if not running or time.monotonic() > deadline:
            return running
        if not failed and any(worker.returncode not in (None, 0) for worker in workers):
            failed = True
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        time.sleep(0.05)


def stop(worker: subprocess.Popen[str]) -> None:
    """End a worker and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):  # nothing of its group may be left
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def free_port() -> int:
    """A port of the loopback device that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- In a worker ---------------------------------------------------------------------------------


def add_place(parser: argparse.ArgumentParser) -> None:
    """The options by which a worker learns its place."""
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)


@contextlib.contextmanager
def joined(place: argparse.Namespace) -> Iterator[None]:
    """Be one process of the run. To be entered before anything asks JAX for devices.

    A failure within ends the process at once. By itself, JAX would wait for the others when the
    interpreter exits, for minutes, while they wait for this one.
    """
    import jax

    try:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(
            f"127.0.0.1:{place.port}", place.count, place.rank, initialization_timeout=60
        )
        yield
    except Exception:
        traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
