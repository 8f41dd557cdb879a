"""The notebooks run, and print what is stored in them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def stored(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        "".join("".join(output["text"]) for output in cell["outputs"] if "text" in output)
        for cell in cells
        if cell["cell_type"] == "code"
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_prints_what_is_stored_in_it(path):
    # In a process of its own: the kernel's client warns about things that are not ours.
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("notebooks.py")), str(path)],
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert any(found)
    assert found == stored(path)
