"""Starting workers and stopping them, with workers that do nothing."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from waiting import PATIENCE_SECONDS, until

PATH = Path(__file__).resolve().parents[2] / "examples" / "loopback.py"
SPEC = importlib.util.spec_from_file_location("loopback_alone", PATH)
loopback = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = loopback
SPEC.loader.exec_module(loopback)

STUCK = """
import pathlib, subprocess, sys, time
rank, folder = int(sys.argv[2]), pathlib.Path(sys.argv[7])
told = folder / "child"
if rank == 1:
    while not told.exists():
        time.sleep(0.01)
    sys.exit("this one has failed")
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
(folder / "begun").write_text(str(child.pid))
(folder / "begun").rename(told)
time.sleep(600)
"""


@pytest.fixture
def stuck(tmp_path):
    script = tmp_path / "stuck.py"
    script.write_text(STUCK)
    return script


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="looks processes up in /proc")
def test_nothing_is_left_when_one_fails(stuck, tmp_path, monkeypatch):
    monkeypatch.setattr(loopback, "GRACE_SECONDS", 1.0)
    first, second = loopback.run_workers(
        stuck, 2, [str(tmp_path)], timeout_seconds=PATIENCE_SECONDS
    )
    assert (first.stopped, first.code) == (True, -9)
    assert (second.stopped, second.code) == (False, 1)
    assert "this one has failed" in second.output
    child = int((tmp_path / "child").read_text())
    until(lambda: not is_running(child))


def test_the_time_is_bounded(stuck, tmp_path):
    (only,) = loopback.run_workers(stuck, 1, [str(tmp_path)], timeout_seconds=1)
    assert only.stopped
