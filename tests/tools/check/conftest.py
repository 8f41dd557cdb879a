from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxtorch_bridge.spec.files.load import load_spec
from jaxtorch_bridge.tools.check.compare_function import Proof, prove

_NUMBERS = itertools.count()
HEAD = "import torch\n"


@pytest.fixture
def write(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Write a module and a contract of its function `f`; gives the contract's file.

    The module is imported from the current folder. Line 5 of the contract is the first input.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    made = []

    def write(code: str, contract: str, function: str = "f") -> Path:
        module = f"ops_{next(_NUMBERS)}"
        made.append(module)
        Path(f"{module}.py").write_text(HEAD + code)
        file = Path(f"{module}.yaml")
        head = f"schema: jaxtorch/1\nname: f\nversion: 1.0.0\nfunction: {module}:{function}\n"
        file.write_text(head + contract)
        return file

    yield write
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def proof_of(write) -> Callable[..., Proof]:
    """The proof of a function `f` and its contract."""

    def proof_of(code: str, contract: str, function: str = "f", *, numeric: bool = False) -> Proof:
        return prove(load_spec(write(code, contract, function)), numeric=numeric)

    return proof_of
