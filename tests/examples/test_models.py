"""The examples with models and figures, on small sizes; each compares with plain torch itself."""

from __future__ import annotations

import pytest

RUNS = {
    "orbits": ["--steps", "40"],
    "phonons": ["--steps", "60"],
    "resnet": ["--steps", "12", "--width", "4", "--least-accuracy", "0.15"],
    "embeddings": ["--steps", "2"],
}


@pytest.mark.parametrize("name", RUNS)
def test_an_example_agrees_with_torch_and_draws_its_figure(name, example, tmp_path, capsys) -> None:
    folder = tmp_path / "figures"
    assert example(name).main([*RUNS[name], "--plots", str(folder)]) == 0, capsys.readouterr().err
    figure = folder / f"{name}.png"
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert str(figure) in capsys.readouterr().out


def test_a_difference_is_a_failure(example, monkeypatch, capsys) -> None:
    orbits = example("orbits")
    monkeypatch.setattr(orbits, "orbits_in_torch", lambda places, *rest: places.new_ones(40, 4, 2))
    assert orbits.main(["--steps", "40"]) == 1
    assert "do not agree" in capsys.readouterr().err
