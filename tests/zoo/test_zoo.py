"""The zoo: that it finds models right, calls wrong what is wrong, and what its page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "zoo.md"


def in_the_zoo(script):
    """Run with the files of ``zoo/`` at hand, which is a folder of scripts."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT / "zoo",
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


@pytest.mark.parametrize("name", ["bert", "resnet", "llama"])
def test_a_model_is_right_in_all_ways(name):
    found = in_the_zoo(
        f"from run import try_model\nrow = try_model(('transformers', '{name}'))\n"
        "print(row.right, len(row.found), row.found)"
    )
    # Called twice as it is and twice by `from_module`, its gradients, and in training mode.
    assert found.startswith("True 6 "), found


def test_another_result_is_called_wrong():
    found = in_the_zoo(
        "import run\n"
        "plain = run._compare\n"
        "run._compare = lambda found, want: plain(found, [2 * one for one in want])\n"
        "row = run.try_model(('transformers', 'bert'))\n"
        "print(row.right, sorted(set(word.split()[0] for word in row.found.values())))"
    )
    assert found == "False ['-', 'off']"


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_the_page_has_sixty_of_each(library):
    right, tried = re.search(rf"## {library}: (\d+) of (\d+)", PAGE.read_text()).groups()
    assert int(right) >= 60
    # Each other one stands there with what does not work.
    text = PAGE.read_text().partition(f"## {library}")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\| `", text, re.MULTILINE)) == int(tried) - int(right)
