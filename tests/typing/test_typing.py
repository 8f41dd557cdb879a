"""mypy and pyright accept the generated stubs and the right calls, and reject each wrong one.

`right_calls.py` and `wrong_calls.py` are read by the checkers, never run. Neither checker needs
the network: pyright's program and node come in its wheels.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WRONG = HERE / "wrong_calls.py"
EXPECTED = re.compile(r"# wrong: ([^|]+) \| (.+)$")
MYPY_LINE = re.compile(r"(.+?):([0-9]+): error: .* +\[([a-z-]+)\]$")

Findings = Mapping[tuple[str, int], set[str]]


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def run_mypy(cache: Path) -> Findings:
    sources = ("tests/golden/stubs", "tests/typing/right_calls.py", "tests/typing/wrong_calls.py")
    settings = ("--config-file", "tests/typing/mypy.ini", "--cache-dir", str(cache))
    findings = defaultdict(set)
    text = run("mypy", *settings, "--no-error-summary", "--hide-error-context", *sources)
    for line in text.splitlines():
        if ": note: " not in line:
            found = MYPY_LINE.match(line)
            assert found, line
            findings[Path(ROOT, found[1]).name, int(found[2])].add(found[3])
    return findings


def run_pyright() -> Findings:
    # Asking whether there is a newer release would need the network.
    offline = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    text = run(
        "pyright",
        "--outputjson",
        "--project",
        "tests/typing",
        "--pythonpath",
        sys.executable,
        env=offline,
    )
    findings = defaultdict(set)
    for one in json.loads(text)["generalDiagnostics"]:
        line = one["range"]["start"]["line"] + 1
        findings[Path(one["file"]).name, line].add(one.get("rule", one["message"]))
    return findings


@pytest.fixture(scope="module")
def expected() -> Mapping[int, tuple[set[str], set[str]]]:
    """Line of `wrong_calls.py` -> mypy's error codes, and pyright's rules."""
    found = {}
    for number, line in enumerate(WRONG.read_text().splitlines(), start=1):
        match = EXPECTED.search(line)
        if match:
            rules = {f"report{rule}" for rule in match[2].split()}
            found[number] = (set(match[1].split()), rules)
    assert len(found) > 20
    return found


def test_mypy(expected, tmp_path):
    wanted = {(WRONG.name, line): codes for line, (codes, _) in expected.items()}
    assert dict(run_mypy(tmp_path)) == wanted


def test_pyright(expected):
    wanted = {(WRONG.name, line): rules for line, (_, rules) in expected.items()}
    assert dict(run_pyright()) == wanted
