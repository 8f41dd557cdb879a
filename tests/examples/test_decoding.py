"""The example that decodes, on a few steps."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch):
    """The example, imported anew."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "decoding", raising=False)
    return importlib.import_module("decoding")


def test_it_agrees_with_torch(decoding, capsys) -> None:
    assert decoding.main(["--steps", "6"]) == 0
    assert capsys.readouterr().out.count("is followed by") == len(decoding.PROMPTS)


def test_a_difference_is_a_failure(decoding, monkeypatch, capsys) -> None:
    monkeypatch.setattr(decoding, "decode_in_torch", lambda _, prompts, steps: prompts)
    assert decoding.main(["--steps", "2"]) == 1
    assert "do not agree" in capsys.readouterr().err
