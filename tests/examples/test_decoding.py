"""The example that decodes, on a few steps."""

from __future__ import annotations

import pytest


@pytest.fixture
def decoding(example):
    return example("decoding")


def test_it_agrees_with_torch(decoding, capsys) -> None:
    assert decoding.main(["--steps", "6"]) == 0
    assert capsys.readouterr().out.count("is followed by") == len(decoding.PROMPTS)


def test_a_difference_is_a_failure(decoding, monkeypatch, capsys) -> None:
    monkeypatch.setattr(decoding, "decode_in_torch", lambda _, prompts, steps: prompts)
    assert decoding.main(["--steps", "2"]) == 1
    assert "do not agree" in capsys.readouterr().err
