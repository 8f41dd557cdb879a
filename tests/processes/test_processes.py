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

from comparing import assert_close

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
# Only so that a run that hangs ends.
TIMEOUT_SECONDS = 600
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


def run(
    count: int, folder: Path, scenes: tuple[str, ...] = (), script: str = "worker.py"
) -> list[dict[str, Any]]:
    ends = loopback.run_workers(
        HERE / script,
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


def single() -> dict[str, Any]:
    """The same training in this one process."""
    found: dict[str, Any] = load(HERE / "worker.py").train()
    return found


# One test a run, and not one a fact: with pytest-xdist, every worker would start runs of its own.


def test_two_processes(tmp_path: Path) -> None:
    found = run(2, tmp_path, SCENES)
    training_equals_that_of_one_process(found)
    every_process_has_the_same_program(found)
    a_function_that_one_process_lacks_is_an_error_in_all(found)
    different_code_in_one_process_is_an_error_in_both(found)
    # Functions that look alike may be numbered differently in the processes.
    assert [one["numbered"]["error"] for one in found] == [None, None]
    # What runs on a process's own devices waits for nobody.
    assert found[0]["alone"]["value"] == 3
    a_process_that_never_comes_is_an_error_in_time(found)


def test_four_processes(tmp_path: Path) -> None:
    found = run(4, tmp_path, ("missing",))
    training_equals_that_of_one_process(found)
    every_process_has_the_same_program(found)
    a_function_that_one_process_lacks_is_an_error_in_all(found)


def test_a_process_without_the_bridge_is_an_error_in_both(tmp_path: Path) -> None:
    first, bare = run(2, tmp_path, script="bare_worker.py")
    assert (first["has_bridge"], bare["has_bridge"]) == (True, False)
    # XLA itself says what that process lacks; the other hears nothing of it, and does not hang.
    assert "jaxtorch_bridge.call" in bare["error"]
    assert "process 1 has not come to it within" in first["error"]


def test_functions_that_xla_runs(tmp_path: Path) -> None:
    for found in run(2, tmp_path, script="xla_worker.py"):
        rows = np.asarray(found["rows"], np.float32)
        for before, after in (found["none"], found["verified"]):
            assert before == after
        assert_close(np.asarray(found["none"][0], np.float32), 2 * np.tanh(rows))
        assert_close(np.asarray(found["verified"][0], np.float32), 3 * np.tanh(rows))
        for weight, result in zip((2, 7), found["islands"], strict=True):
            assert_close(np.asarray(result, np.float32), rows * weight + 3)


def test_a_process_that_reads_nothing_ends_after_its_programs(tmp_path: Path) -> None:
    reader, other = run(2, tmp_path, script="leaving_worker.py")
    assert reader == {"value": 1.0, "calls": 10}
    assert other == {"calls": 10}


def training_equals_that_of_one_process(found: list[dict[str, Any]]) -> None:
    alone = single()
    for one in found:
        mine = one["train"]
        assert_close(mine["losses"], alone["losses"])
        for leaf, expected in alone["params"].items():
            assert_close(mine["params"][leaf], expected)


def every_process_has_the_same_program(found: list[dict[str, Any]]) -> None:
    facts = [one["train"] for one in found]
    assert [one["devices"] for one in facts] == [len(found)] * len(found)
    assert len(facts[0]["ops"]) == 2  # the forward and the backward
    for fact in ("ops", "lowered", "compiled"):
        assert len({str(one[fact]) for one in facts}) == 1, fact


def a_function_that_one_process_lacks_is_an_error_in_all(found: list[dict[str, Any]]) -> None:
    *others, last = [one["missing"]["first"] for one in found]
    assert "OpNotRegisteredError" in last["error"]
    assert "`scaled_sine@0`, which this process does not hold" in last["error"]
    for other in others:
        assert "ProcessMismatchError" in other["error"]
        assert f"`scaled_sine@0` in every process; process {len(others)} does not" in other["error"]
    # Once it is there, the same program runs in all.
    assert {one["missing"]["second"]["error"] for one in found} == {None}


def different_code_in_one_process_is_an_error_in_both(found: list[dict[str, Any]]) -> None:
    for rank, one in enumerate(found):
        error = one["differing"]["error"]
        assert f"expected the same program in every process; process {rank} calls" in error
        assert f"process {1 - rank} has edited@0/" in error


def a_process_that_never_comes_is_an_error_in_time(found: list[dict[str, Any]]) -> None:
    late = found[0]["late"]
    assert "process 1 has not come to it within" in late["error"]
    assert "process_timeout_seconds" in late["error"]
