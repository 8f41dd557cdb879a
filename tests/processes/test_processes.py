"""Runs of two and of four processes on one machine: the same step as in one process, one program
for all, and failures that every process hears of."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
TIMEOUT_SECONDS = 150
SCENES = ("missing", "differing", "numbered", "alone", "late")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"processes_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


loopback = load(EXAMPLES / "loopback.py")


def run(count: int, folder: Path, scenes: tuple[str, ...]) -> list[dict[str, Any]]:
    ends = loopback.run_workers(
        HERE / "worker.py",
        count,
        [str(folder), *scenes],
        timeout_seconds=TIMEOUT_SECONDS,
        env={"OMP_NUM_THREADS": "1"},
    )
    for end in ends:
        assert end.code == 0, (
            f"process {end.rank} of {count} (stopped: {end.stopped})\n" + end.output
        )
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


@pytest.fixture(scope="module")
def single() -> dict[str, Any]:
    """The same training in this one process."""
    found: dict[str, Any] = load(HERE / "worker.py").train()
    return found


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(2, tmp_path_factory.mktemp("two"), SCENES)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run(4, tmp_path_factory.mktemp("four"), ("missing",))


@pytest.mark.parametrize("name", ["two", "four"])
def test_training_equals_that_of_one_process(
    name: str, single: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    for found in request.getfixturevalue(name):
        mine = found["train"]
        np.testing.assert_allclose(mine["losses"], single["losses"], rtol=1e-5)
        for leaf, expected in single["params"].items():
            np.testing.assert_allclose(mine["params"][leaf], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "count"), [("two", 2), ("four", 4)])
def test_every_process_has_the_same_program(
    name: str, count: int, request: pytest.FixtureRequest
) -> None:
    found = [one["train"] for one in request.getfixturevalue(name)]
    assert [one["devices"] for one in found] == [count] * count
    assert len(found[0]["ops"]) == 2  # the forward and the backward
    for fact in ("ops", "lowered", "compiled"):
        assert len({str(one[fact]) for one in found}) == 1, fact


@pytest.mark.parametrize("name", ["two", "four"])
def test_a_function_that_one_process_lacks_is_an_error_in_all(
    name: str, request: pytest.FixtureRequest
) -> None:
    found = [one["missing"]["first"] for one in request.getfixturevalue(name)]
    *others, last = found
    assert "OpNotRegisteredError" in last["error"]
    assert "`scaled_sine@0`, which this process does not hold" in last["error"]
    for other in others:
        assert "ProcessMismatchError" in other["error"]
        assert f"`scaled_sine@0` in every process; process {len(others)} does not" in other["error"]
    assert max(one["seconds"] for one in found) < 20


@pytest.mark.parametrize("name", ["two", "four"])
def test_once_it_is_there_the_same_program_runs(name: str, request: pytest.FixtureRequest) -> None:
    for one in request.getfixturevalue(name):
        assert one["missing"]["second"]["error"] is None


def test_different_code_in_one_process_is_an_error_in_both(two: list[dict[str, Any]]) -> None:
    for rank, one in enumerate(two):
        error = one["differing"]["error"]
        assert "expected the same program in every process" in error
        assert f"process {1 - rank} has edited@0/" in error
        assert one["differing"]["seconds"] < 20


def test_functions_that_look_alike_may_be_numbered_differently(two: list[dict[str, Any]]) -> None:
    assert [one["numbered"]["error"] for one in two] == [None, None]


def test_what_runs_on_own_devices_waits_for_nobody(two: list[dict[str, Any]]) -> None:
    assert two[0]["alone"]["value"] == 3
    assert two[0]["alone"]["seconds"] < 5


def test_a_process_that_never_comes_is_an_error_in_time(two: list[dict[str, Any]]) -> None:
    late = two[0]["late"]
    assert "process 1 has not come to it within 2 seconds" in late["error"]
    assert "process_timeout_seconds" in late["error"]
    assert late["seconds"] < 15
