"""Shared pieces of the tests."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest
import torch

import choosing

ROOT = Path(__file__).resolve().parent.parent

with contextlib.suppress(ImportError):  # a machine with a GPU may not have it, nor need it
    from hypothesis import HealthCheck, settings

    # How long an example takes is the machine's affair.
    settings.register_profile(
        "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("any machine")


# The two live as long as the process. Searches for garbage, which planning makes where a function
# leaves something behind, need not go through all that they hold.
assert torch
gc.collect()
gc.freeze()
# What compiled programs hold is no garbage before JAX forgets them.
_TESTS_BETWEEN = 50
_tests = itertools.count(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Say how to choose among the tests; see `choosing`."""
    parser.addoption(
        "--each-value",
        action="store_true",
        help="run each test function with every value of each of its parameters, and not with"
        " every combination of them",
    )
    parser.addoption("--every", type=int, default=1, metavar="N", help="run each Nth test alone")


def pytest_configure(config: pytest.Config) -> None:
    """Tell what is asked for while modules of tests are imported."""
    choosing.PARTIAL = config.getoption("--each-value")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose."""
    chosen = choosing.each_value(items) if config.getoption("--each-value") else list(items)
    choosing.keep(config, items, choosing.each_nth(chosen, config.getoption("--every")))


def pytest_collection_finish() -> None:
    """Thousands of tests are as long-lived as what they import."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What is `derivatives` runs with room for tapes, and, unless it needs tapes, with none."""
    if metafunc.definition.get_closest_marker("derivatives"):
        needs = metafunc.definition.get_closest_marker("needs_tapes")
        rooms = [None] if needs else [None, 0]
        names = {None: "tapes", 0: "no-tapes"}
        metafunc.fixturenames.append("tape_bytes")
        metafunc.parametrize("tape_bytes", rooms, ids=names.__getitem__, indirect=True)


@pytest.fixture(autouse=True)
def _small_process() -> Iterator[None]:
    """A process of thousands of tests holds not much more than one of a few."""
    yield
    if next(_tests) % _TESTS_BETWEEN == 0:
        jax.clear_caches()
        gc.collect()
        # What is left lives on: modules that tests have imported, tables of torch.
        gc.freeze()


@pytest.fixture
def tape_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int | None:
    """How much may be held between forward and backward: with 0 every backward runs again."""
    bridge = sys.modules["jaxtorch_bridge"]
    monkeypatch.setattr(bridge.settings, "tape_bytes", request.param)
    room: int | None = request.param
    return room


@pytest.fixture(autouse=True)
def _no_tapes_left() -> Iterator[None]:
    """Those whose backward never runs would wait until there is no room for others."""
    yield
    table = sys.modules.get("jaxtorch_bridge.torchside.derive.tape.tape_table")
    if table is not None:
        table.TAPES.clear()


@pytest.fixture
def run_python() -> Callable[..., str]:
    """Run a script in a fresh interpreter: for what JAX or torch read once at import.

    It can import what the tests can.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    path = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))

    def run(script: str, *, env: dict[str, str] | None = None, check: bool = True) -> str:
        own = env or {}
        done = subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:jaxtorch_bridge", "-c", script],
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": path,
                **own,
                # With those of `make test-processors`.
                "XLA_FLAGS": " ".join(filter(None, [flags, own.get("XLA_FLAGS")])),
            },
            cwd=ROOT,
            timeout=900,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout if check else done.stdout + done.stderr

    return run
