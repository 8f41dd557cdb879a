"""The rules of who may import whom, in `pyproject.toml`, and that each finds a wrong import."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "jaxtorch_bridge"
# The finder of the editable installation would lead back to the package itself.
LINT = """
import sys
sys.meta_path[:] = [one for one in sys.meta_path if "editable" not in type(one).__module__]
from importlinter.cli import lint_imports_command
lint_imports_command()
"""


def lint(folder):
    """What import-linter says of the package in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(folder), "PATH": "", "NO_COLOR": "1", "COLUMNS": "200"},
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, to be made wrong."""
    shutil.copytree(
        ROOT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("__pycache__", "*.so")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_rules_hold(copy):
    code, text = lint(copy)
    assert code == 0, text


WRONG = {
    "a room below imports one above": (
        "planner/plan.py",
        "from ..calling import way_of_calling",
        "The rooms of the package",
    ),
    "an argument knows what is planned": (
        "calling/arguments/random_key.py",
        "from .. import call_planner",
        "The rooms of a call",
    ),
    "the JAX side imports the torch side": (
        "jaxside/lowering.py",
        "from ..torchside.op import torch_op",
        "The rooms of the package",
    ),
    "an op knows what derives from it": (
        "torchside/op/make_op.py",
        "from ..derive import linearize",
        "The rooms of the torch side",
    ),
    "inside of a function": (
        "torchside/op/make_op.py",
        "def late() -> None:\n    from ..derive import linearize",
        "The rooms of the torch side",
    ),
    "an engine knows the linear part": (
        "torchside/derive/engines/func_transforms.py",
        "from .. import linear_part",
        "The rooms of derivatives",
    ),
    "a circle of two files": (
        "planner/array_signature.py",
        "from . import plan",
        "No circle",
    ),
    "a contract imports torch": (
        "spec/model.py",
        "import torch",
        "Contracts and plans know neither jax nor torch",
    ),
    "the torch side imports jax": (
        "torchside/handler/cuda_streams.py",
        "import jax",
        "The torch side knows no jax",
    ),
    "the JAX side imports torch": (
        "jaxside/eager_calls.py",
        "import torch",
        "The JAX side knows no torch",
    ),
    "internals of JAX need those of torch": (
        "_compat/jax/arrays.py",
        "from ..torch import tensors",
        "The JAX side knows no torch",
    ),
    "a room that nobody has placed": (
        "cellar.py",
        "",
        "The rooms of the package",
    ),
}


@pytest.mark.parametrize(("file", "line", "rule"), WRONG.values(), ids=WRONG)
def test_a_wrong_import_is_found(copy, file, line, rule):
    with (copy / PACKAGE / file).open("a") as stream:
        stream.write(f"\n{line}\n")
    code, text = lint(copy)
    assert code == 1, text
    broken = [one for one in text.splitlines() if one.endswith("BROKEN")]
    assert any(one.startswith(rule) for one in broken), text


@pytest.mark.parametrize(
    "line",
    [
        "from jax._src import core",
        "import torch._dynamo",
        "import torch\n\ntorch._C._len_torch_function_stack()",
    ],
)
def test_an_internal_outside_of_compat_is_found(copy, line):
    ruff = pytest.importorskip("ruff")
    (copy / PACKAGE / "planner" / "wrong.py").write_text(f'"""Wrong."""\n\n{line}\n')
    done = subprocess.run(
        [ruff.find_ruff_bin(), "check", "--select", "TID251", "--no-cache", "."],
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "belongs in jaxtorch_bridge/_compat" in done.stdout
