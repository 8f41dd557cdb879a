"""The example with results of a bounded size, on a few boxes."""

from __future__ import annotations

import pytest


@pytest.fixture
def detection(example):
    return example("detection")


def test_it_agrees_with_torch(detection, capsys) -> None:
    assert detection.main(["--images", "2", "--boxes", "40"]) == 0
    assert "as in torch" in capsys.readouterr().out


def test_a_difference_is_a_failure(detection, monkeypatch, capsys) -> None:
    wrong = detection.loss_in_torch
    monkeypatch.setattr(detection, "loss_in_torch", lambda *images: 2 * wrong(*images))
    assert detection.main(["--images", "1", "--boxes", "10"]) == 1
    assert "torch has" in capsys.readouterr().out
